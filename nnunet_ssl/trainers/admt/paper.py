"""AD-MT as released for ACDC; for the left atrium with the recipe ``admt_la``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from nnunet_ssl.trainers.admt.settings import ADMTHyperparameters
from nnunet_ssl.trainers.admt.trainer import nnUNetTrainerADMT
from nnunet_ssl.training.recipe import AS_PUBLISHED, Optimization, Recipe
from nnunet_ssl.training.settings import other_default


@dataclass(frozen=True)
class ADMTPaperHyperparameters(ADMTHyperparameters):
    guard: bool = other_default(ADMTHyperparameters, "guard", False, source="off, as published")
    threshold: float = other_default(ADMTHyperparameters, "threshold", 0.95, source="0.95, released code (ACDC)")
    unsupervised_weight: float = other_default(
        ADMTHyperparameters, "unsupervised_weight", 4.0, source="2 beside half the supervised loss, released code"
    )
    rampup_fraction: float = other_default(
        ADMTHyperparameters, "rampup_fraction", 0.25, source="0.25, released code (ACDC)"
    )
    period_steps: int | None = other_default(ADMTHyperparameters, "period_steps", 50, source="50, released code (ACDC)")
    pseudo_loss: str = other_default(ADMTHyperparameters, "pseudo_loss", "dice", source="dice, released code (ACDC)")


class nnUNetTrainerADMT_paper(nnUNetTrainerADMT):
    """12 and 12 slices, in 3D 2 and 2 patches, SGD with momentum 0.9 and polynomial decay, 30 000 steps.

    The released loss is half of this one at 0.01 with a decay of 1e-4, which is the same. No deep supervision,
    clipping, mixed precision or mirrored prediction. What the settings block names under "training" wins.
    """

    Hyperparameters: ClassVar[type] = ADMTPaperHyperparameters
    hyperparameters: ADMTPaperHyperparameters
    recipe: ClassVar[Recipe] = replace(
        AS_PUBLISHED,
        optimization=Optimization("sgd", rate=0.005, weight_decay=2e-4, momentum=0.9, nesterov=False),
        augmented=True,  # geometry
        epochs=120,  # of nnU-Net's 250 steps
        batch_size=2,
        batch_size_2d=12,
    )
    views: ClassVar[tuple[str, ...]] = ("labeled.weak", "unlabeled.weak", "unlabeled.strong")
    labeled_view: ClassVar[str] = "weak"
