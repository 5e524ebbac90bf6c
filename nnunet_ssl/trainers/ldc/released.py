"""LDC as the authors' script trains it: one multiplier, a squared error of logits, a contrast of unrelated images."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from torch import Tensor, nn

from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.losses.lagrangian import LagrangeMultipliers
from nnunet_ssl.losses.released_ldc import image_contrast, released_ldc
from nnunet_ssl.trainers.ldc.dual_ascent import LABELED
from nnunet_ssl.trainers.ldc.settings import PLAIN, LDCHyperparameters
from nnunet_ssl.trainers.ldc.trainer import nnUNetTrainerLDC
from nnunet_ssl.training.base import Terms
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.deep_supervision import finest
from nnunet_ssl.training.distributed import number_of_ranks, sum_over_ranks
from nnunet_ssl.training.recipe import AS_PUBLISHED, Optimization, Recipe
from nnunet_ssl.training.settings import other_default
from nnunet_ssl.training.watch import WEIGHT

BATCH_SIZE = 28  # labelled and unlabelled slices each, released code
LEAST_RATE, DESCENTS = 1e-5, 10  # of the cosine: 100 of 1000 epochs down, 100 up, released code


class Cosine:
    """The learning rate falls along a cosine to 1e-5, rises again, and so on: ten halves of a period in a training.

    A function of the epoch, which nnU-Net hands to its scheduler; nothing to save for a resume.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, initial_lr: float, num_epochs: int) -> None:
        self.optimizer, self.initial_lr, self.num_epochs = optimizer, initial_lr, num_epochs

    def step(self, epoch: int) -> None:
        """Set the rate of the epoch that begins."""
        height = (1.0 + math.cos(math.pi * DESCENTS * epoch / self.num_epochs)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = LEAST_RATE + (self.initial_lr - LEAST_RATE) * height


@dataclass(frozen=True)
class LDCReleasedHyperparameters(LDCHyperparameters):
    guard: bool = other_default(LDCHyperparameters, "guard", False, source="off, as published")
    constrained_weight: float = other_default(
        LDCHyperparameters, "constrained_weight", 0.5, source="1/2, released code"
    )
    contrast_weight: float = other_default(LDCHyperparameters, "contrast_weight", 0.5, source="1/2, released code")
    supervised_weight: float = other_default(
        LDCHyperparameters, "supervised_weight", 0.0, source="part of the constrained loss, released code"
    )
    unlabeled_weight: float = other_default(LDCHyperparameters, "unlabeled_weight", 0.0, source="none, released code")
    warmup_fraction: float = other_default(LDCHyperparameters, "warmup_fraction", 0.0, source="none, released code")
    ascent: str = other_default(LDCHyperparameters, "ascent", PLAIN, source="plain, released code")
    reset_each_epoch: bool = other_default(LDCHyperparameters, "reset_each_epoch", True, source="on, released code")
    norm_budget: float = other_default(LDCHyperparameters, "norm_budget", 0.0, source="none, released code")


class OneMultiplier:
    """lambda of the mean over all channels, unlimited: in place of the constraints of :class:`DualAscent`."""

    def __init__(self, step: float, device: torch.device) -> None:
        self.multipliers = LagrangeMultipliers(1, (LABELED,), step=step, limit=math.inf, device=device)
        self.excess = torch.zeros(1, device=device)

    @property
    def value(self) -> Tensor:
        """lambda, a float scalar."""
        return self.multipliers.volume[LABELED][0].float()

    def set_budget(self) -> None:
        """The norm of the weights is free."""

    def ascend(self) -> None:
        """lambda <- lambda + 0.01 h with the mean h of all ranks."""
        self.multipliers.ascend_volume(LABELED, sum_over_ranks(self.excess) / number_of_ranks())

    def state(self) -> dict[str, Any]:
        return {name: value.clone() for name, value in self.multipliers.state_dict().items()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.multipliers.load_state_dict(state)


class nnUNetTrainerLDC_released(nnUNetTrainerLDC):
    """L = (0.3 BCE + 0.5 Dice + lambda h + 0.2 squared error of logits + contrast) / 2, on labelled patches.

    There is no teacher, distance or projection; unlabelled patches are constant targets of the contrast. lambda
    begins anew in every epoch. AdamW at 0.01 along a cosine of five periods, 28 + 28 slices in 2D; random crops; no
    deep supervision, clipping or mixed precision. What the settings block names under "training" wins. The network is
    the plans' U-Net.
    """

    Hyperparameters: ClassVar[type] = LDCReleasedHyperparameters
    hyperparameters: LDCReleasedHyperparameters
    views: ClassVar[tuple[str, ...]] = ("labeled.image", "unlabeled.image")
    dual: OneMultiplier  # type: ignore[assignment]
    card: ClassVar[MethodCard] = replace(
        nnUNetTrainerLDC.card,
        predicts="the network",
        extra_memory="none",
        extra_time="about 0.7: a forward alone of the unlabelled half",
    )
    recipe: ClassVar[Recipe] = replace(
        AS_PUBLISHED,
        optimization=Optimization("adamw", rate=0.01, weight_decay=3e-5, schedule=Cosine),
        optimizers={name: Optimization(name, weight_decay=3e-5) for name in ("sgd", "adamw")},
        batch_size_2d=BATCH_SIZE,
    )

    def build_auxiliary(self) -> dict[str, nn.Module]:
        self.dual = OneMultiplier(self.hyperparameters.multiplier_step, self.device)
        return {}

    def labeled_steps(self) -> list[BasicTransform]:
        return []

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> Terms:
        hp, target = self.hyperparameters, finest(labeled.target)
        logits = finest(self.forward(self.network, labeled.image)).float()
        other = self.label_with(self.network, unlabeled.image).float()
        self.observe_pseudo_labels(other, other, unlabeled.valid)

        truth = self.targets.target_masks(target)
        if not self.targets.has_regions:
            truth = torch.cat((~truth.any(1, keepdim=True), truth), 1)
        foreground = range(len(self.targets.foreground)) if self.targets.has_regions else None
        found = released_ldc(logits, truth, self.dual.value, self.targets.annotated(target), foreground=foreground)
        self.dual.excess = found.excess.detach().view(1)
        self.monitor.add("excess", found.excess)
        self.monitor.add(WEIGHT + "excess", self.dual.value)
        terms = Terms()
        terms.add("constrained", found.loss, hp.constrained_weight)
        if hp.contrast_weight > 0:
            terms.add("contrast", image_contrast(other, logits, hp.temperature), hp.contrast_weight)
        return terms

    def after_optimizer_step(self) -> None:
        self.dual.ascend()
