"""PLGCL as its paper describes it, where that differs from the recommended defaults."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from nnunet_ssl.trainers.plgcl.morphological_view import PublishedView
from nnunet_ssl.trainers.plgcl.settings import PLGCLHyperparameters
from nnunet_ssl.trainers.plgcl.trainer import nnUNetTrainerPLGCL
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.published_recipes import PUBLISHED
from nnunet_ssl.training.recipe import Recipe
from nnunet_ssl.training.settings import other_default


@dataclass(frozen=True)
class PLGCLPaperHyperparameters(PLGCLHyperparameters):
    guard: bool = other_default(PLGCLHyperparameters, "guard", False, source="off, as published")
    warmup_epochs: int | None = other_default(PLGCLHyperparameters, "warmup_epochs", 50, source="50, Sec. 3.4")
    covariance_schedule: str = other_default(
        PLGCLHyperparameters, "covariance_schedule", "constant", source="constant, Sec. 4.2"
    )
    confidence_source: str = other_default(
        PLGCLHyperparameters, "confidence_source", "student", source="student, Sec. 3.1"
    )
    key_encoder: str = other_default(
        PLGCLHyperparameters, "key_encoder", "student", source="student, Secs. 3.1 and 3.2"
    )
    memory_size: int = other_default(
        PLGCLHyperparameters, "memory_size", 84, source="the patches of the step, Sec. 3.2; of four steps, recommended"
    )
    ema_rampup: bool = other_default(PLGCLHyperparameters, "ema_rampup", False, source="constant, Eqs. 9-10")
    supervised_loss: str = other_default(PLGCLHyperparameters, "supervised_loss", "ce", source="ce, Eq. 7")


class nnUNetTrainerPLGCL_paper(nnUNetTrainerPLGCL):
    """Adam at a constant 1e-4, cross-entropy alone, 50 epochs of warm-up, constant lambda; in 2D 8 and 8 slices.

    Keys and confidence come from the student, no key is older than four steps, since no teacher steadies them, and the
    strong view is the paper's. Slices are uniform, gradients unclipped, predictions not mirrored. What the settings
    block names under "training" wins.
    """

    Hyperparameters: ClassVar[type] = PLGCLPaperHyperparameters
    hyperparameters: PLGCLPaperHyperparameters
    card: ClassVar[MethodCard] = replace(
        nnUNetTrainerPLGCL.card,
        extra_memory="one copy of the network, patches",
        extra_time="about 1.4 in operations",
    )
    recipe: ClassVar[Recipe] = replace(PUBLISHED["plgcl"], batch_size_2d=8)  # half of Sec. 4.2's 16

    def make_strong_view(self, anisotropic: bool) -> PublishedView:
        return PublishedView((0,) if anisotropic else None, masked_channels=self.streams.masked_channels)
