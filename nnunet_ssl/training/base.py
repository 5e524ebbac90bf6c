"""The base of every semi-supervised trainer: everything that is not the method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.data.views import keep_background
from nnunet_ssl.training.deep_supervision import deep_supervised
from nnunet_ssl.training.distributed import rank_share, take_from_first_rank
from nnunet_ssl.training.monitor import LOSS
from nnunet_ssl.training.monitored import nnUNetTrainerMonitored
from nnunet_ssl.training.network import freeze_unused_heads, swap_weights, unwrap
from nnunet_ssl.training.two_streams import SemiSupervisedHyperparameters

GRADIENT_NORM = 12.0  # nnU-Net's limit, here per network


class nnUNetTrainerSemiSupervised(nnUNetTrainerMonitored):
    """Two streams, auxiliary networks, checkpoints and monitoring. A method writes the five methods below.

    `self.network` is the network that predicts. `self.auxiliary` holds what training needs beside it, as built by
    :meth:`build_auxiliary`, under DDP and torch.compile wrapped like the network.
    """

    # ---- what a method writes

    def build_auxiliary(self) -> dict[str, nn.Module]:
        """Modules needed to train but not to predict; trainable ones join the optimiser. Called once, at initialize."""
        return {}

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> dict[str, Tensor]:
        """Weighted scalar terms by name; their sum is backpropagated. Runs outside autocast, in float32.

        Forwards go through :meth:`forward`, which is autocast; the supervised term is :meth:`supervised_loss`.
        """
        raise NotImplementedError

    def after_optimizer_step(self) -> None:
        """EMA, knowledge transfer."""

    def auxiliary_state(self) -> dict[str, Any]:
        """State beside the auxiliary modules that must survive a resume: tensors and plain Python only."""
        return {}

    def load_auxiliary_state(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`auxiliary_state`."""

    def predictor(self) -> nn.Module:
        """The network whose weights are validated and saved as `network_weights`: `self.network` or a copy of it."""
        return self.network

    def clipping_groups(self) -> list[list[nn.Parameter]]:
        """Parameters whose gradients are clipped together, to a norm of 12: those of each network."""
        return [list(network.parameters()) for network in (self.network, *self.auxiliary.values())]

    # ---- tools for a method

    def forward(self, network: nn.Module, *images: Tensor) -> Any:
        """Forward in nnU-Net's mixed precision (on CUDA only). Returns what the network returns."""
        with self.mixed_precision():
            return network(*images)

    def forward_joint(self, labeled: Tensor, unlabeled: Tensor) -> tuple[Any, Tensor]:
        """One forward of self.network over both streams.

        Returns:
            outputs of the labelled patches as nnU-Net's loss wants them (a list with deep supervision), and the
            full-resolution logits (B_U, K, *P) of the unlabelled ones.
        """
        count = labeled.shape[0]
        outputs = self.forward(self.network, torch.cat([labeled, unlabeled]))
        if isinstance(outputs, (list, tuple)):
            return [o[:count] for o in outputs], outputs[0][count:]
        return outputs[:count], outputs[count:]

    def supervised_loss(self, outputs: Any, target: Any) -> Tensor:
        """nnU-Net's own loss with deep supervision, as nnU-Net evaluates it."""
        with self.mixed_precision():
            return self.loss(outputs, target)

    def deep_supervised(self, loss: Callable[..., Tensor], outputs: Any, *maps: Any) -> Tensor:
        """A loss of our own at every resolution, with nnU-Net's weights; see :func:`deep_supervised`."""
        return deep_supervised(loss, getattr(self.loss, "weight_factors", None), outputs, *maps)

    def annotated(self, target: Any) -> Any:
        """Where a label map, or each of a list, is no ignore label: (B, 1, *P) bool; ``None`` without such a label."""
        ignored = self.label_manager.ignore_label
        if ignored is None:
            return None
        return [t != ignored for t in target] if isinstance(target, list) else target != ignored

    def with_noise(self, images: Tensor, std: float, clip: float) -> Tensor:
        """Images (B, C, *P) plus clip(N(0, std), -clip, clip); a background that nnU-Net keeps at zero stays zero."""
        noise = (torch.randn_like(images) * std).clamp_(-clip, clip)
        return keep_background(images + noise, images, self.masked_channels)

    def share_of_ranks(self, count: Tensor) -> Tensor:
        """Factor for a mean over ``count`` elements of this rank; see :func:`rank_share`. 1 without DDP."""
        return rank_share(count)

    def network_copy(self) -> nn.Module:
        """A frozen copy of self.network without deep supervision; it receives -pretrained_weights too."""
        copy = self.build_network_architecture(
            self.plans_manager,
            self.configuration_manager,
            self.num_input_channels,
            self.label_manager.num_segmentation_heads,
            enable_deep_supervision=False,
        )
        copy.load_state_dict(unwrap(self.network).state_dict())
        self._copies.append(copy)
        return copy.requires_grad_(False)

    # ---- construction

    def set_up(self) -> None:
        super().set_up()
        self.auxiliary: dict[str, nn.Module] = {}
        self._copies: list[nn.Module] = []

    def initialize(self) -> None:
        super().initialize()
        self.auxiliary = {name: self._wrap(module) for name, module in self.build_auxiliary().items()}

    def _wrap(self, module: nn.Module) -> nn.Module:
        """On the training device, in the optimiser and behind the same wrappers as the network."""
        module = take_from_first_rank(module.to(self.device))
        freeze_unused_heads(module)
        trainable = [p for p in module.parameters() if p.requires_grad]
        if self._do_i_compile():
            module = cast(nn.Module, torch.compile(module))
        if trainable:
            self.optimizer.add_param_group({"params": trainable})
            if self.is_ddp:
                ids = [self.local_rank] if self.device.type == "cuda" else None
                module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
                module = DistributedDataParallel(module, device_ids=ids)
        return module

    def on_train_start(self) -> None:
        self.check_unlabeled_cases()
        super().on_train_start()
        if self.is_ddp:
            self._separate_random_numbers()
        if not self._resumed:  # -pretrained_weights were loaded after the copies were made
            for copy in self._copies:
                copy.load_state_dict(unwrap(self.network).state_dict())

    def _separate_random_numbers(self) -> None:
        """Every process starts with torch's one default seed: masks and noise would be the same on each rank."""
        torch.manual_seed(torch.initial_seed() + self.current_epoch * dist.get_world_size() + dist.get_rank())

    # ---- one step

    def mixed_precision(self) -> AbstractContextManager[Any]:
        return torch.autocast("cuda") if self.device.type == "cuda" else nullcontext()

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        labeled, unlabeled = self.split_batch(batch)
        self.optimizer.zero_grad(set_to_none=True)
        terms = self.losses(labeled, unlabeled)
        total = torch.stack(list(terms.values())).sum()
        self._optimize(total)
        self.after_optimizer_step()
        for name, value in terms.items():
            self.monitor.add(LOSS + name, value)
        self._observe_labels(labeled)
        self._step += 1
        return {"loss": total.detach().cpu().numpy()}  # nnU-Net synchronises here too

    def _optimize(self, total: Tensor) -> None:
        scaler = self.grad_scaler
        (scaler.scale(total) if scaler else total).backward()
        if scaler:
            scaler.unscale_(self.optimizer)
        for group in self.clipping_groups():
            trainable = [p for p in group if p.requires_grad]
            if trainable:
                nn.utils.clip_grad_norm_(trainable, GRADIENT_NORM)
        if scaler:
            scaler.step(self.optimizer)
            scaler.update()
        else:
            self.optimizer.step()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        for module in self.auxiliary.values():
            module.train()

    # ---- the predicting network

    def _predictor_name(self) -> str | None:
        """Name of the predicting auxiliary network, None for self.network."""
        predictor = self.predictor()
        return next((name for name, module in self.auxiliary.items() if module is predictor), None)

    @contextmanager
    def _predictor_in_place(self) -> Iterator[None]:
        """self.network holds the predicting weights inside, the trained ones again afterwards."""
        predictor = self.predictor()
        if predictor is self.network:
            yield
            return
        swap_weights(self.network, predictor)
        try:
            yield
        finally:
            swap_weights(self.network, predictor)

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        with self._predictor_in_place():
            return super().validation_step(batch)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        with self._predictor_in_place():
            super().perform_actual_validation(save_probabilities)

    # ---- checkpoints

    def save_checkpoint(self, filename: str) -> None:
        with self._predictor_in_place():
            super().save_checkpoint(filename)

    def extra_state(self) -> dict[str, Any]:
        auxiliary = {name: unwrap(module).state_dict() for name, module in self.auxiliary.items()}
        return super().extra_state() | {
            "auxiliary": auxiliary,
            "auxiliary_state": self.auxiliary_state(),
            "predictor": self._predictor_name(),
        }

    def load_extra_state(self, state: dict[str, Any]) -> None:
        super().load_extra_state(state)
        for name, module in self.auxiliary.items():
            unwrap(module).load_state_dict(state["auxiliary"][name])
        self.load_auxiliary_state(state["auxiliary_state"])
        if state["predictor"] is not None:  # the file holds the predicting weights as network_weights
            swap_weights(self.network, self.auxiliary[state["predictor"]])


__all__ = ["SemiSupervisedHyperparameters", "nnUNetTrainerSemiSupervised"]
