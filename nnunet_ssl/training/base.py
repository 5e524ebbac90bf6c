"""The base of every semi-supervised trainer: everything that is not the method."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert3DTo2DTransform
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.data.streams import (
    UNKNOWN_LABEL,
    TwoStreamLoader,
    UnlabeledDataset,
    UnlabeledLoader,
    single_process_loading,
)
from nnunet_ssl.data.views import StrongView, geometric_part
from nnunet_ssl.training import pseudo_labels
from nnunet_ssl.training.configured import nnUNetTrainerConfigured
from nnunet_ssl.training.distributed import rank_share
from nnunet_ssl.training.monitor import LOSS, PREFIX, WEIGHT, Monitor, draw_png, history, register, write_csv
from nnunet_ssl.training.network import swap_weights, unwrap
from nnunet_ssl.training.pool import unlabeled_pool
from nnunet_ssl.training.settings import setting

GRADIENT_NORM = 12.0  # nnU-Net's limit, here per network
OBSERVE_EVERY = 10  # steps between two looks at the pseudo-labels


@dataclass(frozen=True)
class SemiSupervisedHyperparameters:
    """What every semi-supervised trainer understands."""

    unlabeled_batch_size: int | None = setting(None, "unlabelled patches per step; none: the plans' batch size", low=1)
    monitor_withheld_labels: bool = setting(
        False, "log the true Dice of the pseudo-labels of withheld cases; reads their labels, for the log only"
    )


class nnUNetTrainerSemiSupervised(nnUNetTrainerConfigured):
    """Two streams, auxiliary networks, checkpoints and monitoring. A method writes the five methods below.

    `self.network` is the network that predicts. `self.auxiliary` holds what training needs beside it, as built by
    :meth:`build_auxiliary`, under DDP and torch.compile wrapped like the network.
    """

    Hyperparameters: ClassVar[type] = SemiSupervisedHyperparameters

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

    # ---- tools for a method

    @property
    def progress(self) -> float:
        """(epoch + step / steps) / epochs, in [0, 1]: what every ramp and schedule is a function of."""
        return (self.current_epoch + self._step / self.num_iterations_per_epoch) / self.num_epochs

    @property
    def iteration(self) -> int:
        """Optimiser steps taken since the start of training, also after a resume."""
        return self.current_epoch * self.num_iterations_per_epoch + self._step

    def forward(self, network: nn.Module, images: Tensor) -> Any:
        """Forward in nnU-Net's mixed precision (on CUDA only). Returns what the network returns."""
        with self.mixed_precision():
            return network(images)

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

    def weigh(self, name: str, loss: Tensor, weight: float) -> Tensor:
        """weight * loss, with the weight on record."""
        self.monitor.add(WEIGHT + name, weight)
        return weight * loss

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

    def observe_pseudo_labels(self, student: Tensor, teacher: Tensor, valid: Tensor) -> None:
        """Log coverage, agreement and foreground of the pseudo-labels, every few steps and without synchronising.

        Args:
            student, teacher: logits (B_U, K, *P) of the same voxels.
            valid: (B_U, 1, *P) bool.
        """
        if self._step % OBSERVE_EVERY:
            return
        regions = self.label_manager.has_regions
        for name, value in pseudo_labels.describe(student, teacher, valid, regions).items():
            self.monitor.add(name, value)
        if self._withheld_label is not None:
            label = self._withheld_label
            known = valid & (label != UNKNOWN_LABEL)
            classes = self.label_manager.foreground_regions if regions else self.label_manager.foreground_labels
            values = [c if isinstance(c, (tuple, list)) else (c,) for c in classes]
            self.monitor.add("true_dice", *pseudo_labels.true_dice(teacher, label, known, values, regions))

    # ---- construction

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net compares this signature with its own
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.is_cascaded:
            raise NotImplementedError(
                f"{type(self).__name__} does not support cascade stages ({configuration} needs the predictions of "
                f"{self.configuration_manager.previous_stage_name}). Train 3d_fullres, 3d_lowres or 2d."
            )
        self.auxiliary: dict[str, nn.Module] = {}
        self.monitor = Monitor(self.device)
        self.strong_view: StrongView | None = None
        self._copies: list[nn.Module] = []
        self._step = 0
        self._withheld_label: Tensor | None = None
        self._warned: set[str] = set()

    def initialize(self) -> None:
        super().initialize()
        for name, module in self.build_auxiliary().items():
            module = module.to(self.device)
            trainable = [p for p in module.parameters() if p.requires_grad]
            if self._do_i_compile():
                module = torch.compile(module)
            if trainable:
                self.optimizer.add_param_group({"params": trainable})
                if self.is_ddp:
                    ids = [self.local_rank] if self.device.type == "cuda" else None
                    module = DistributedDataParallel(module, device_ids=ids)
            self.auxiliary[name] = module

    def on_train_start(self) -> None:
        self.unlabeled_cases()  # complain before any work
        super().on_train_start()
        if not self._resumed:  # -pretrained_weights were loaded after the copies were made
            for copy in self._copies:
                copy.load_state_dict(unwrap(self.network).state_dict())

    # ---- the two streams

    def unlabeled_cases(self) -> dict[str, str]:
        """Case id -> preprocessed folder of the fold's unlabelled pool."""
        if not self.was_initialized:
            self.initialize()
        fold = self.split_of_fold()
        command = (
            f"nnunet_ssl preprocess -d {self.dataset_id} -c {self.configuration_name} "
            f"-p {self.plans_manager.plans_name}"
        )
        labeled_cases = self.dataset_class.get_identifiers(self.preprocessed_dataset_folder)
        withheld = fold.unlabeled if fold else []
        return unlabeled_pool(self.preprocessed_dataset_folder, withheld, labeled_cases, command)

    def unlabeled_batch_size(self) -> int:
        """Unlabelled patches per step on this rank."""
        size = self.hyperparameters.unlabeled_batch_size
        if size is None:
            return self.batch_size
        ranks, rank = (dist.get_world_size(), dist.get_rank()) if self.is_ddp else (1, 0)
        if size < ranks:
            raise ValueError(f"unlabeled_batch_size {size} is smaller than the number of GPUs, {ranks}")
        return size // ranks + (rank < size % ranks)

    def get_dataloaders(self) -> tuple[Any, Any]:
        """nnU-Net's loaders, the training one paired with the unlabelled stream in the same workers."""
        with single_process_loading():
            training, validation = (augmenter.data_loader for augmenter in super().get_dataloaders())
        pool = self.unlabeled_cases()
        monitored = self.hyperparameters.monitor_withheld_labels
        withheld = frozenset(c for c, folder in pool.items() if folder == self.preprocessed_dataset_folder)
        dataset = UnlabeledDataset(pool, withheld if monitored else frozenset(), with_monitor=monitored)
        weak = geometric_part(training.transforms)
        unlabeled = UnlabeledLoader(dataset, self.unlabeled_batch_size(), training, weak)
        self.strong_view = self.make_strong_view(anisotropic=any(isinstance(t, Convert3DTo2DTransform) for t in weak.transforms))
        self.print_to_log_file(f"Unlabelled pool: {len(pool)} cases, {len(withheld)} of them withheld training cases.")
        processes = get_allowed_n_proc_DA()
        # a queued pair holds twice the patches, so half of nnU-Net's queue keeps its memory
        streams = self._in_workers(TwoStreamLoader(training, unlabeled), processes, max(3, processes // 4))
        return streams, self._in_workers(validation, max(1, processes // 2) if processes else 0, max(3, processes // 4))

    def make_strong_view(self, anisotropic: bool) -> StrongView:
        """The photometric view; a method adds transforms with ``StrongView(ignore_axes, extra=...)``."""
        return StrongView(ignore_axes=(0,) if anisotropic else None)

    def _in_workers(self, loader: Any, processes: int, cached: int) -> Any:
        if processes == 0:
            return SingleThreadedAugmenter(loader, None)
        pin = self.device.type == "cuda"
        augmenter = NonDetMultiThreadedAugmenter(loader, None, processes, cached, pin_memory=pin, wait_time=0.002)
        next(augmenter)  # starts the workers, as nnU-Net does
        return augmenter

    def _on_device(self, batch: Any) -> Any:
        if isinstance(batch, list):
            return [self._on_device(b) for b in batch]
        return batch.to(self.device, non_blocking=True)

    def split_batch(self, batch: dict[str, Any]) -> tuple[LabeledBatch, UnlabeledBatch]:
        """Move one pair of batches to the training device."""
        assert self.strong_view is not None
        labeled = LabeledBatch(self._on_device(batch["data"]), self._on_device(batch["target"]))
        channels = self._on_device(batch["unlabeled"]["target"])
        self._withheld_label = channels[:, 1:2] if channels.shape[1] > 1 else None
        weak = self._on_device(batch["unlabeled"]["data"])
        return labeled, UnlabeledBatch(weak, channels[:, :1] >= 0, self.strong_view)

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
        for network in (self.network, *self.auxiliary.values()):
            trainable = [p for p in network.parameters() if p.requires_grad]
            if trainable:
                nn.utils.clip_grad_norm_(trainable, GRADIENT_NORM)
        if scaler:
            scaler.step(self.optimizer)
            scaler.update()
        else:
            self.optimizer.step()

    def _observe_labels(self, labeled: LabeledBatch) -> None:
        if self._step % OBSERVE_EVERY == 0:
            target = labeled.target[0] if isinstance(labeled.target, list) else labeled.target
            self.monitor.add("labeled_foreground", (target > 0).any(1).float().mean())

    # ---- epochs

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._step = 0
        for module in self.auxiliary.values():
            module.train()

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        super().on_train_epoch_end(train_outputs)
        means = self.monitor.epoch_means()
        logging = self.logger.local_logger.my_fantastic_logging
        known = {key for key in logging if key.startswith(PREFIX)}
        for key in sorted(known | {PREFIX + name for name in means}):
            register(logging, key, self.current_epoch)
            self.logger.log(key, means.get(key.removeprefix(PREFIX), math.nan), self.current_epoch)
        self._report(means)

    def _report(self, means: dict[str, float]) -> None:
        self.print_to_log_file("semi-supervised:", ", ".join(f"{name} {value:.4g}" for name, value in means.items()))
        for name, value in means.items():
            term = name.removeprefix(LOSS)
            if name.startswith(LOSS) and value == 0 and means.get(WEIGHT + term, 1.0) > 0:
                self._warn_once(f"The loss term {term} was exactly zero in every step of this epoch.")
        foreground, labeled = means.get("foreground", math.nan), means.get("labeled_foreground", math.nan)
        if self.progress > 0.2 and foreground < 0.02 * labeled:
            self._warn_once(
                f"The pseudo-labels have collapsed to background: {foreground:.2g} of the unlabelled voxels are "
                f"foreground, against {labeled:.2g} of the labelled ones."
            )

    def _warn_once(self, message: str) -> None:
        kind = message.split(":")[0]
        if kind not in self._warned:
            self._warned.add(kind)
            self.print_to_log_file("WARNING:", message)

    def on_epoch_end(self) -> None:
        super().on_epoch_end()
        if self.local_rank == 0:
            table = history(self.logger.local_logger.my_fantastic_logging)
            write_csv(table, self.output_folder)
            draw_png(table, self.output_folder)

    # ---- the predicting network

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
            "predictor_is_copy": self.predictor() is not self.network,
        }

    def load_extra_state(self, state: dict[str, Any]) -> None:
        super().load_extra_state(state)
        for name, module in self.auxiliary.items():
            unwrap(module).load_state_dict(state["auxiliary"][name])
        self.load_auxiliary_state(state["auxiliary_state"])
        if state["predictor_is_copy"]:  # the file holds the predicting weights as network_weights
            swap_weights(self.network, self.predictor())


__all__: Sequence[str] = ["SemiSupervisedHyperparameters", "nnUNetTrainerSemiSupervised"]
