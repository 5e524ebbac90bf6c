"""CPS as SSL4MIS trains it, where that differs from the recommended defaults."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from nnunet_ssl.trainers.cps.settings import CPSHyperparameters
from nnunet_ssl.trainers.cps.trainer import nnUNetTrainerCPS
from nnunet_ssl.trainers.unimatch.paper import HALVED
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.recipe import Recipe
from nnunet_ssl.training.settings import other_default


@dataclass(frozen=True)
class CPSReleasedHyperparameters(CPSHyperparameters):
    guard: bool = other_default(CPSHyperparameters, "guard", False, source="off, as published")
    cross_weight: float = other_default(
        CPSHyperparameters, "cross_weight", 0.2, source="0.1 beside half the supervised loss, SSL4MIS"
    )
    rampup_fraction: float = other_default(CPSHyperparameters, "rampup_fraction", 1.0, source="1, SSL4MIS")
    cutmix_probability: float = other_default(CPSHyperparameters, "cutmix_probability", 0.0, source="0, SSL4MIS")


class nnUNetTrainerCPS_released(nnUNetTrainerCPS):
    """No mixing, a small weight that rises to the end; 12 and 12 slices, SGD with momentum 0.9, 31 000 steps.

    What the settings block names under "training" wins.
    """

    Hyperparameters: ClassVar[type] = CPSReleasedHyperparameters
    hyperparameters: CPSReleasedHyperparameters
    card: ClassVar[MethodCard] = replace(nnUNetTrainerCPS.card, extra_time="about 2")
    views: ClassVar[tuple[str, ...]] = ("labeled.weak", "unlabeled.weak")
    labeled_view: ClassVar[str] = "weak"
    recipe: ClassVar[Recipe] = HALVED
