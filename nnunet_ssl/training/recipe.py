"""What a trainer trains with instead of nnU-Net's own: declared, not written out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import nn

NNUNET_EPOCHS = 1000
DECAYING = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


class StepScheduler:
    """The learning rate, divided by ``factor`` at each of ``drops``, which are fractions of training.

    A function of the epoch, which nnU-Net hands to its scheduler; nothing to save for a resume.

    Args:
        optimizer: all of its groups get the same rate.
        initial_lr: until the first drop.
        num_epochs: the length of training.
        drops: an epoch that begins at or after such a fraction has the lower rate.
        factor: 10 divides by ten.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        initial_lr: float,
        num_epochs: int,
        drops: Sequence[float],
        factor: float = 10.0,
    ) -> None:
        self.optimizer, self.initial_lr, self.num_epochs = optimizer, initial_lr, num_epochs
        self.drops, self.factor = tuple(drops), factor

    def step(self, epoch: int) -> None:
        """Set the rate of the epoch that begins."""
        passed = sum(epoch / self.num_epochs >= drop for drop in self.drops)
        for group in self.optimizer.param_groups:
            group["lr"] = self.initial_lr / self.factor**passed


Scheduler = Callable[[torch.optim.Optimizer, float, int], Any]
POLYNOMIAL: Scheduler = PolyLRScheduler  # power 0.9, nnU-Net's
CONSTANT: Scheduler = partial(StepScheduler, drops=())


def divided_by_ten_at(*drops: float) -> Scheduler:
    """A schedule that divides the rate by ten at each of these fractions of training."""
    return partial(StepScheduler, drops=drops)


@dataclass(frozen=True)
class Optimization:
    """Optimiser, learning rate, weight decay and schedule. ``None`` keeps nnU-Net's value.

    Attributes:
        name: sgd, adam or adamw.
        rate: at the start.
        weight_decay: of what decays.
        momentum, nesterov: of sgd.
        weights_decay_alone: of convolutions and linear layers; biases, norms, scales and tables do not.
        schedule: (optimiser, rate, epochs) -> scheduler.
    """

    name: str = "sgd"
    rate: float | None = None
    weight_decay: float | None = None
    momentum: float = 0.99
    nesterov: bool = True
    weights_decay_alone: bool = False
    schedule: Scheduler = POLYNOMIAL

    @property
    def is_nnunets(self) -> bool:
        """Whether nnU-Net's own code does just this, given rate and weight decay."""
        return (self.name, self.momentum, self.nesterov, self.schedule) == ("sgd", 0.99, True, POLYNOMIAL)

    def build(
        self, network: nn.Module, rate: float, weight_decay: float, epochs: int
    ) -> tuple[torch.optim.Optimizer, Any]:
        """(optimiser, scheduler) with the rate and weight decay in force."""
        groups = self.groups(network, weight_decay)
        optimizer: torch.optim.Optimizer
        if self.name == "sgd":
            optimizer = torch.optim.SGD(
                groups, rate, momentum=self.momentum, nesterov=self.nesterov, weight_decay=weight_decay
            )
        else:
            kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.name]
            optimizer = kind(groups, rate, weight_decay=weight_decay)
        return optimizer, self.schedule(optimizer, rate, epochs)

    def groups(self, network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups of a network for an optimiser. Frozen parameters are in none, but in AdamW's only one."""
        if self.weights_decay_alone:
            return decay_groups(network, weight_decay)
        everything = self.name == "adamw"  # so are checkpoints
        return [{"params": [p for p in network.parameters() if p.requires_grad or everything]}]


def decay_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for an optimiser: weights of convolutions and linear layers, and without decay all other parameters.

    The latter are biases, norms, scales and tables. Frozen parameters are in none.
    """
    decaying = {id(module.weight) for module in network.modules() if isinstance(module, DECAYING)}
    trainable = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if id(p) in decaying], "weight_decay": weight_decay},
        {"params": [p for p in trainable if id(p) not in decaying], "weight_decay": 0.0},
    ]


NNUNET = Optimization()
ADAMW = Optimization("adamw")
ADAMW_FOR_TRANSFORMERS = Optimization("adamw", rate=1e-4, weight_decay=0.01, weights_decay_alone=True)
"""As networks with layer scales, learned temperatures and query tables want it."""


@dataclass(frozen=True)
class Recipe:
    """What a publication trains with; what it leaves open is nnU-Net's. The settings block of the plans wins.

    Attributes:
        optimization: where the settings name no optimiser.
        optimizers: by name in the settings, where sgd and adamw mean something else than nnU-Net's SGD and plain AdamW.
        epochs: length of training.
        validation_steps: per epoch, of the estimate that is drawn while training.
        batch_size: labelled patches per step, whatever the plans say.
        batch_size_2d: the same, of 2D plans alone.
        augmented: off: random crops as they are, and no mirroring.
        foreground_share: of the crops that must show foreground; 0: uniform crops.
        mirrored_prediction: off: prediction does not mirror.
        deep_supervision: off: the full resolution alone.
        clipped: off: gradients of any norm (semi-supervised trainers).
        mixed_precision: off: float32 (semi-supervised trainers).
    """

    optimization: Optimization = NNUNET
    optimizers: Mapping[str, Optimization] = field(default_factory=dict)
    epochs: int | None = None
    validation_steps: int | None = None
    batch_size: int | None = None
    batch_size_2d: int | None = None
    augmented: bool = True
    foreground_share: float | None = None
    mirrored_prediction: bool = True
    deep_supervision: bool = True
    clipped: bool = True
    mixed_precision: bool = True

    def optimization_for(self, setting: str | None) -> Optimization:
        """What trains, given the optimiser that the settings name, or ``None``."""
        if setting is None:
            return self.optimization
        return {"sgd": NNUNET, "adamw": ADAMW, **self.optimizers}[setting]

    def batch_size_for(self, dimensions: int) -> int | None:
        """Labelled patches per step of plans with patches of so many axes; ``None``: the plans'."""
        return self.batch_size_2d if dimensions == 2 and self.batch_size_2d is not None else self.batch_size


AS_PUBLISHED = Recipe(
    augmented=False,
    foreground_share=0.0,
    mirrored_prediction=False,
    deep_supervision=False,
    clipped=False,
    mixed_precision=False,
)
"""What most publications train with: uniform random crops without augmentation, float32. To be completed."""
