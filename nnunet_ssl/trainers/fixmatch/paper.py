"""FixMatch as published, trained as the field trains on medical images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from nnunet_ssl.trainers.fixmatch.settings import FixMatchHyperparameters
from nnunet_ssl.trainers.fixmatch.trainer import nnUNetTrainerFixMatch
from nnunet_ssl.trainers.unimatch.paper import SSL4MIS, WEAK
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.recipe import Recipe
from nnunet_ssl.training.settings import other_default


@dataclass(frozen=True)
class FixMatchPaperHyperparameters(FixMatchHyperparameters):
    guard: bool = other_default(FixMatchHyperparameters, "guard", False, source="off, as published")
    teacher: str = other_default(FixMatchHyperparameters, "teacher", "none", source="none, FixMatch")
    rampup_fraction: float = other_default(FixMatchHyperparameters, "rampup_fraction", 0.0, source="0, FixMatch")
    cutmix_probability: float = other_default(FixMatchHyperparameters, "cutmix_probability", 0.0, source="0, FixMatch")
    pseudo_loss: str = other_default(FixMatchHyperparameters, "pseudo_loss", "ce", source="ce, FixMatch")


class nnUNetTrainerFixMatch_paper(nnUNetTrainerFixMatch):
    """No teacher, no ramp, no box, cross-entropy alone; otherwise trained as :class:`nnUNetTrainerUniMatch_paper`."""

    Hyperparameters: ClassVar[type] = FixMatchPaperHyperparameters
    hyperparameters: FixMatchPaperHyperparameters
    card: ClassVar[MethodCard] = replace(nnUNetTrainerFixMatch.card, predicts="the network", extra_memory="none")
    recipe: ClassVar[Recipe] = SSL4MIS
    views: ClassVar[tuple[str, ...]] = WEAK
    labeled_view: ClassVar[str] = "weak"
