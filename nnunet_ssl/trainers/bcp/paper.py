"""BCP as released for ACDC; in 3D with the batch of the left atrium, whose whole recipe is ``bcp_la``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from nnunet_ssl.trainers.bcp.settings import BCPHyperparameters
from nnunet_ssl.trainers.bcp.trainer import nnUNetTrainerBCP
from nnunet_ssl.training.recipe import AS_PUBLISHED, CONSTANT, Optimization, Recipe
from nnunet_ssl.training.settings import other_default


@dataclass(frozen=True)
class BCPPaperHyperparameters(BCPHyperparameters):
    guard: bool = other_default(BCPHyperparameters, "guard", False, source="off, as published")
    box_per: str = other_default(BCPHyperparameters, "box_per", "batch", source="batch, released code")
    pretrain_fraction: float = other_default(
        BCPHyperparameters, "pretrain_fraction", 0.25, source="10 000 of 40 000 steps, released code (ACDC)"
    )
    largest_component: str = other_default(BCPHyperparameters, "largest_component", "on", source="on, released code")


class nnUNetTrainerBCP_paper(nnUNetTrainerBCP):
    """12 and 12 slices, in 3D 4 and 4 patches, SGD at a constant 0.01 with momentum 0.9, 40 000 steps.

    Geometric augmentation alone; no deep supervision, clipping, mixed precision or mirrored prediction. What the
    settings block names under "training" wins.
    """

    Hyperparameters: ClassVar[type] = BCPPaperHyperparameters
    hyperparameters: BCPPaperHyperparameters
    recipe: ClassVar[Recipe] = replace(
        AS_PUBLISHED,
        optimization=Optimization("sgd", rate=0.01, weight_decay=1e-4, momentum=0.9, nesterov=False, schedule=CONSTANT),
        augmented=True,  # geometry
        epochs=160,  # of nnU-Net's 250 steps
        batch_size=4,
        batch_size_2d=12,
    )
    views: ClassVar[tuple[str, ...]] = ("labeled.weak", "unlabeled.weak", "unlabeled.strong")
    labeled_view: ClassVar[str] = "weak"
