"""PLGCL as its paper describes it, where that differs from the recommended defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nnunet_ssl.trainers.plgcl.settings import PLGCLHyperparameters
from nnunet_ssl.trainers.plgcl.trainer import nnUNetTrainerPLGCL
from nnunet_ssl.training.recipe import CONSTANT, Optimization, Recipe
from nnunet_ssl.training.settings import setting


@dataclass(frozen=True)
class PLGCLPaperHyperparameters(PLGCLHyperparameters):
    warmup_epochs: int | None = setting(
        50, "epochs without contrast; none: 5 % of the training, at least 1", source="50, Sec. 3.4", low=0
    )
    covariance_schedule: str = setting(
        "constant",
        "lambda rises after the warm-up, or is constant",
        source="constant, Sec. 4.2",
        choices=("linear", "constant"),
    )
    queries: str = setting(
        "anchor", "patches that are contrasted", source="anchor, Sec. 3.1", choices=("all", "anchor")
    )
    confidence_source: str = setting(
        "student",
        "network whose probabilities attend unlabelled images",
        source="student, Sec. 3.1",
        choices=("teacher", "student"),
    )
    key_encoder: str = setting(
        "student",
        "network that embeds the keys; the teacher sees them augmented",
        source="student, Secs. 3.1 and 3.2",
        choices=("teacher", "student"),
    )
    supervised_loss: str = setting(
        "ce", "nnU-Net's own loss, or its cross-entropy alone", source="ce, Eq. 7", choices=("nnunet", "ce")
    )


class nnUNetTrainerPLGCL_paper(nnUNetTrainerPLGCL):
    """Adam at a constant 1e-4, cross-entropy alone, 50 epochs of warm-up, constant lambda; in 2D 8 and 8 slices.

    Queries are the anchors, keys and confidence come from the student. What the settings block names under "training"
    wins.
    """

    Hyperparameters: ClassVar[type] = PLGCLPaperHyperparameters
    hyperparameters: PLGCLPaperHyperparameters
    recipe: ClassVar[Recipe] = Recipe(
        Optimization("adam", rate=1e-4, weight_decay=0.0, schedule=CONSTANT),  # Sec. 4.2; no decay is stated
        batch_size_2d=8,  # labelled and unlabelled each, 16 in Sec. 4.2
    )
