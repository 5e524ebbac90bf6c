"""The base of every semi-supervised trainer: everything that is not the method."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from torch import Tensor, nn
from torch import distributed as dist
from torch.backends import cpu

from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.data.streams import single_process_loading
from nnunet_ssl.data.strong_view import StrongView
from nnunet_ssl.data.views import keep_background
from nnunet_ssl.training import curves
from nnunet_ssl.training.checkpoint import generator_state, load_part, restore_generator
from nnunet_ssl.training.configured import nnUNetTrainerConfigured
from nnunet_ssl.training.deep_supervision import deep_supervised, finest, split_outputs
from nnunet_ssl.training.distributed import take_from_first_rank
from nnunet_ssl.training.monitor import OBSERVE_EVERY, Monitor
from nnunet_ssl.training.network import (
    check_network_and_stage,
    for_bfloat16_on_cpu,
    freeze_unused_heads,
    in_place_of,
    optimize,
    swap_weights,
    unwrap,
    wrap,
)
from nnunet_ssl.training.ramps import START, Guard, Ramp
from nnunet_ssl.training.streams import SemiSupervisedHyperparameters, Streams
from nnunet_ssl.training.targets import Targets
from nnunet_ssl.training.teacher import TEACHER, Teacher
from nnunet_ssl.training.terms import Terms
from nnunet_ssl.training.watch import GUARD, Concerns, pull_of_terms, steps_to_look_at

WITHOUT_BFLOAT16 = ("NO AVX", "AVX2")  # what PyTorch calls x86 processors that emulate it, slowly


class nnUNetTrainerSemiSupervised(nnUNetTrainerConfigured):
    """Two streams, auxiliary networks, one step, checkpoints and monitoring. A method writes what follows below.

    A batch goes from the loader through :meth:`split_batch` to :meth:`losses`, whose terms :meth:`train_step` sums and
    backpropagates. `self.network` is the network that predicts. Beside it:

    Attributes:
        streams: the two streams, from the pool of cases to batches on the device.
        targets: classes or regions of the dataset.
        monitor: what is logged.
        auxiliary: modules needed to train but not to predict, under DDP and torch.compile wrapped like the network.
        teacher: the moving average of the network, where the method has one.
        guard: what it knows of the pseudo-labels' foreground.
        step: optimiser steps taken in this epoch.
    """

    Hyperparameters: ClassVar[type] = SemiSupervisedHyperparameters
    views: ClassVar[tuple[str, ...]] = ("labeled.image", "unlabeled.weak", "unlabeled.strong")
    """What :meth:`losses` reads of the batches; nothing else is computed."""
    requires_plain_logits: ClassVar[bool] = True
    """False for trainers that can use networks which answer with more in training, or build their own."""
    uses_unlabeled: ClassVar[bool] = True
    """False for a method's control on labelled cases alone: no pool is needed, the unlabelled batch is empty."""
    generator: torch.Generator | None = None
    """A method's own random numbers: ``build_auxiliary`` makes it with ``own_generator``, the checkpoint keeps it."""

    # ---- what a method writes

    def build_auxiliary(self) -> dict[str, nn.Module]:
        """Modules needed to train but not to predict; trainable ones join the optimiser. Called once, at initialize."""
        return {}

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> dict[str, Tensor]:
        """Weighted scalar terms by name, see :class:`Terms`; their sum is backpropagated. Outside autocast, in float32.

        Forwards go through :meth:`forward`, which is autocast; the supervised term is :meth:`supervised_loss`.
        """
        raise NotImplementedError

    def after_optimizer_step(self) -> None:
        """What is neither the optimiser's nor the teacher's: knowledge transfer, dual ascent."""

    def auxiliary_state(self) -> dict[str, Any]:
        """State beside the auxiliary modules that must survive a resume: tensors and plain Python only."""
        return {} if self.generator is None else generator_state(self.generator)

    def load_auxiliary_state(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`auxiliary_state`."""
        if self.generator is not None:
            restore_generator(self.generator, state, self.current_epoch)

    def make_strong_view(self, anisotropic: bool) -> Callable[[Tensor], Tensor]:
        """The photometric view; a method adds transforms with ``StrongView(..., extra=...)``."""
        return StrongView((0,) if anisotropic else None, masked_channels=self.streams.masked_channels)

    def labeled_steps(self) -> list[BasicTransform]:
        """What the workers do to a labelled patch at last; what a step adds to it by name arrives in ``extra``."""
        return []

    def predictor(self) -> nn.Module:
        """The network whose weights are validated and saved as `network_weights`: `self.network` or a copy of it."""
        wanted = getattr(self.hyperparameters, "predict_with", None)
        return self.auxiliary[TEACHER] if self.teacher is not None and wanted == TEACHER else self.network

    def clipping_groups(self) -> list[list[nn.Parameter]]:
        """Parameters whose gradients are clipped together, to a norm of 12: those of each network."""
        return [list(network.parameters()) for network in (self.network, *self.auxiliary.values())]

    @property
    def pulled(self) -> list[nn.Parameter]:
        """Parameters on which the pull of each term is measured; where terms train a second network, its too."""
        return list(self.network.parameters())

    # ---- tools for a method

    @property
    def progress(self) -> float:
        """(epoch + step / steps) / epochs, in [0, 1]: what every ramp and schedule is a function of."""
        return (self.current_epoch + self.step / self.num_iterations_per_epoch) / self.num_epochs

    @property
    def iteration(self) -> int:
        """Optimiser steps taken since the start of training, also after a resume."""
        return self.current_epoch * self.num_iterations_per_epoch + self.step

    @property
    def observing(self) -> bool:
        """Whether this is a step, one in ten, in which a method may log what takes a pass over the voxels."""
        return self.step % OBSERVE_EVERY == 0

    def ramp(self, rise: float, warmup: float = 0.0, **options: Any) -> float:
        """A weight in [0, 1] at this moment of training; see :class:`Ramp`."""
        return Ramp(rise, warmup, **options).at(self.progress, self.num_epochs * self.num_iterations_per_epoch)

    def held(self, weight: float) -> float:
        """The weight of a term that learns from pseudo-labels, held back at the start and while they lack foreground.

        They are those of :meth:`observe_pseudo_labels`, which is called whatever the weight. See :class:`Guard`; with
        the setting ``guard`` off, the weight as it is.
        """
        if not self._guarded:
            return weight
        steps = self.num_epochs * self.num_iterations_per_epoch
        return weight * START.at(self.progress, steps) * self.guard.factor

    @property
    def _guarded(self) -> bool:
        return getattr(self.hyperparameters, "guard", False)

    def forward(self, network: Callable[..., Any], *inputs: Any) -> Any:
        """Forward in nnU-Net's mixed precision (on CUDA only). Returns what the network returns."""
        with self.mixed_precision():
            return network(*inputs)

    def forward_joint(self, labeled: Tensor, unlabeled: Tensor) -> tuple[Any, Any]:
        """Outputs of the labelled and of the unlabelled patches, in one forward of self.network over both.

        Both are as nnU-Net's loss wants them: logits, or with deep supervision a list of them, the finest first.
        """
        outputs = self.forward(self.network, torch.cat([labeled, unlabeled]))
        return split_outputs(outputs, len(labeled))

    @torch.no_grad()
    def label_with(self, network: nn.Module, images: Tensor) -> Tensor:
        """Logits (B, K, *P) of a trained network at full resolution, without gradient.

        Past its wrappers: compiled, the network would be traced a second time without gradient.
        """
        return finest(self.forward(unwrap(network), images))

    def supervised_loss(self, outputs: Any, target: Any) -> Tensor:
        """nnU-Net's own loss with deep supervision, as nnU-Net evaluates it."""
        with self.mixed_precision():
            return self.loss(outputs, target)

    def deep_supervised(self, loss: Callable[..., Tensor], outputs: Any, *maps: Any) -> Tensor:
        """A loss of our own at every resolution, with nnU-Net's weights; see :func:`deep_supervised`."""
        return deep_supervised(loss, getattr(self.loss, "weight_factors", None), outputs, *maps)

    def with_noise(self, images: Tensor, std: float, clip: float) -> Tensor:
        """Images (B, C, *P) plus clip(N(0, std), -clip, clip); a background that nnU-Net keeps at zero stays zero."""
        noise = (torch.randn_like(images) * std).clamp_(-clip, clip)
        return keep_background(images + noise, images, self.streams.masked_channels)

    def observe_pseudo_labels(
        self, student: Tensor, teacher: Tensor, valid: Tensor, pasted: Tensor | None = None
    ) -> None:
        """Log coverage, agreement and foreground of the pseudo-labels, every few steps and without synchronising.

        Args:
            student, teacher: logits (B_U, K, *P) of the same voxels.
            valid: (B_U, 1, *P) bool.
            pasted: (B_U, 1, *P) bool, where the student saw another patch than the teacher; ``None``: nowhere.
        """
        if self.observing:
            self.monitor.pseudo_labels(student, teacher, valid, pasted)

    def confident(self, label: Tensor, confidence: Tensor, threshold: float, valid: Tensor) -> Tensor:
        """Voxels (B_U, 1, *P) bool whose pseudo-label is sure enough; their share of each class is put on record.

        Args:
            label, confidence: (B_U, 1, *P), or of each region (B_U, R, *P).
            threshold: least confidence.
            valid: (B_U, 1, *P) bool.
        """
        keep = (confidence >= threshold) & valid
        if self.observing:
            self.monitor.kept(label, keep, valid)
        return keep

    def network_copy(self) -> nn.Module:
        """A frozen copy of self.network without deep supervision; it receives -pretrained_weights too."""
        copy: Any = self.second_network()  # with deep supervision a network may have weights that it lacks without
        if self.enable_deep_supervision:
            copy.decoder.deep_supervision = False
        copy.load_state_dict(unwrap(self.network).state_dict())
        self._copies.append(copy)
        return copy.requires_grad_(False)

    def second_network(self) -> nn.Module:
        """A trainable network of the same plans with weights of its own, clipped on its own as every auxiliary one."""
        return self.build_network_architecture(
            self.plans_manager,
            self.configuration_manager,
            self.num_input_channels,
            self.label_manager.num_segmentation_heads,
            enable_deep_supervision=self.enable_deep_supervision,
        )

    # ---- construction

    @classmethod
    def check_supported(cls, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        super().check_supported(plans, configuration, dataset_json)
        check_network_and_stage(cls.__name__, plans, configuration, cls.requires_plain_logits)

    def set_up(self) -> None:
        super().set_up()
        self.streams = Streams(self, self.views, self.uses_unlabeled)
        self.targets = Targets(self.label_manager)
        self.monitor = Monitor(self.device, self.targets)
        self.concerns = Concerns(self.print_to_log_file)
        self.guard = Guard()
        self.teacher: Teacher | None = None
        self.auxiliary: dict[str, nn.Module] = {}
        self.step = 0
        self._copies: list[nn.Module] = []

    def initialize(self) -> None:
        if self.hyperparameters.pull_looks > 0 and self._do_i_compile():
            torch._functorch.config.donated_buffer = False  # a look at the pull keeps the graph for the backward pass
        super().initialize()
        self.auxiliary = {name: self._wrap(module) for name, module in self.build_auxiliary().items()}
        if self.teacher is not None:
            self.teacher.join(self)

    def _wrap(self, module: nn.Module) -> nn.Module:
        """On the training device, in the optimiser and behind the same wrappers as the network."""
        module = take_from_first_rank(module.to(self.device))
        if self.on_fast_cpu:
            for_bfloat16_on_cpu(module)
        freeze_unused_heads(module)
        for group in self.optimization.groups(module, self.weight_decay):
            trainable = [p for p in group["params"] if p.requires_grad]
            if trainable:
                self.optimizer.add_param_group(group | {"params": trainable})
        return wrap(module, self._do_i_compile(), self.is_ddp, self.device)

    def get_dataloaders(self) -> tuple[Any, Any]:
        """nnU-Net's loaders, the training one paired with the unlabelled stream in the same workers."""
        with single_process_loading():
            training, validation = (augmenter.data_loader for augmenter in super().get_dataloaders())
        return self.streams.loaders(training, validation, self.make_strong_view, self.labeled_steps())

    def on_train_start(self) -> None:
        self.streams.check_cases()
        super().on_train_start()
        if self.on_fast_cpu and cpu.get_cpu_capability() in WITHOUT_BFLOAT16:
            self.print_to_log_file(
                "WARNING: cpu_bfloat16 is set, but this processor has no instructions for bfloat16, so that training "
                "takes many times as long. Make these plans again without the setting: nnunet_ssl plans --overwrite."
            )
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
        """Of nnU-Net on CUDA; on a CPU where the settings ask for it."""
        wanted = self.recipe_in_force.mixed_precision
        if wanted and self.on_fast_cpu:
            return torch.autocast("cpu", torch.bfloat16)
        return torch.autocast("cuda") if wanted and self.device.type == "cuda" else nullcontext()

    def split_batch(self, batch: dict[str, Any]) -> tuple[LabeledBatch, UnlabeledBatch]:
        """What the loaders give for one step, on the training device; withheld labels go to the monitor alone."""
        labeled, unlabeled, self.monitor.withheld = self.streams.split(batch)
        return labeled, unlabeled

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        labeled, unlabeled = self.split_batch(batch)
        self.optimizer.zero_grad(set_to_none=True)
        terms = self.losses(labeled, unlabeled)
        if self.step in self.steps_with_a_look():
            self.monitor.pull(self.measure_pull(terms))
        total = torch.stack(list(terms.values())).sum()
        clipped = self.clipping_groups if self.recipe_in_force.clipped else list
        optimize(total, self.optimizer, self.grad_scaler, clipped)
        if self.teacher is not None:
            self.teacher.update(self.iteration)
        self.after_optimizer_step()
        self.monitor.terms(terms)
        if self._guarded:
            self.monitor.add(GUARD, self.held(1.0))
        if self.observing:
            self.monitor.labels(labeled)
        loss = total.detach().cpu().numpy()  # nnU-Net synchronises here too
        if self.observing and self._guarded:
            self._look_at_foreground()
        self.step += 1
        return {"loss": loss}

    def measure_pull(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of each term, see :func:`pull_of_terms`; without waiting for the device, as ``get_scale`` would."""
        scale = self.grad_scaler.scale(torch.ones((), device=self.device)) if self.grad_scaler else 1.0
        return pull_of_terms(terms, self.pulled, scale)

    def steps_with_a_look(self) -> set[int]:
        """Steps of this epoch in which the pull of each term is measured."""
        looks = self.hyperparameters.pull_looks
        return steps_to_look_at(looks, self.num_iterations_per_epoch, self.current_epoch)

    def _look_at_foreground(self) -> None:
        """For the guard; behind the synchronisation of the step, so that reading a few numbers waits for nothing."""
        shares = self.monitor.take_shares()
        if "pseudo" in shares:
            looks = self.num_epochs * self.num_iterations_per_epoch / OBSERVE_EVERY
            self.guard.look(shares["labeled"], shares["pseudo"], looks)

    # ---- epochs

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.step = 0
        for module in self.auxiliary.values():
            module.train()
        if self.teacher is not None:
            self.teacher.set_mode()

    def trained_modules(self) -> dict[str, nn.Module]:
        learnt = {n: m for n, m in self.auxiliary.items() if any(p.requires_grad for p in m.parameters())}
        return super().trained_modules() | learnt

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        super().on_train_epoch_end(train_outputs)
        means = self.monitor.epoch_means()
        curves.log_epoch(self.logger, means, self.current_epoch, self.print_to_log_file)
        self.concerns.consider(curves.logged(self.logger.local_logger.my_fantastic_logging), self.progress)

    def on_epoch_end(self) -> None:
        super().on_epoch_end()
        if self.local_rank == 0:
            curves.write_files(self.logger, self.output_folder)

    # ---- the predicting network

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        with in_place_of(self.network, self.predictor()):
            return super().validation_step(batch)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        with in_place_of(self.network, self.predictor()):
            super().perform_actual_validation(save_probabilities)

    # ---- checkpoints

    def save_checkpoint(self, filename: str) -> None:
        with in_place_of(self.network, self.predictor()):
            super().save_checkpoint(filename)

    def extra_state(self) -> dict[str, Any]:
        auxiliary = {name: unwrap(module).state_dict() for name, module in self.auxiliary.items()}
        return super().extra_state() | {
            "auxiliary": auxiliary,
            "auxiliary_state": self.auxiliary_state(),
            "guard": self.guard.state(),
            "predictor": next((n for n, m in self.auxiliary.items() if m is self.predictor()), None),
        }

    def load_extra_state(self, state: dict[str, Any]) -> None:
        super().load_extra_state(state)
        for name, module in self.auxiliary.items():
            load_part(unwrap(module), state["auxiliary"], name)
        self.load_auxiliary_state(state["auxiliary_state"])
        if "guard" in state:  # not in checkpoints of earlier versions
            self.guard.load_state(state["guard"])
        if state["predictor"] is not None:  # the file holds the predicting weights as network_weights
            swap_weights(self.network, self.auxiliary[state["predictor"]])


__all__ = ["SemiSupervisedHyperparameters", "Terms", "nnUNetTrainerSemiSupervised"]
