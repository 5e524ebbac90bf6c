"""CMAformer with what the paper prints, where that can be trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from nnunet_ssl.trainers.cmaformer.network import RECIPE, CMAformerNetworkHyperparameters
from nnunet_ssl.trainers.cmaformer.trainer import CMAformerHyperparameters, nnUNetTrainerCMAformer
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.recipe import Recipe
from nnunet_ssl.training.settings import other_default


@dataclass(frozen=True)
class CMAformerPaperHyperparameters(CMAformerHyperparameters):
    guard: bool = other_default(CMAformerHyperparameters, "guard", False, source="off, as published")
    dice_form: str = other_default(CMAformerHyperparameters, "dice_form", "voxel", source="voxel, Eq. 2")
    ascent: str = other_default(CMAformerHyperparameters, "ascent", "plain", source="plain, Eq. 3")
    unlabeled_weight: float = other_default(
        CMAformerHyperparameters, "unlabeled_weight", 1.0, source="as its labelled part"
    )
    multiplier_limit: float = other_default(CMAformerHyperparameters, "multiplier_limit", 0.5, source="out of the way")
    gate: str = other_default(CMAformerHyperparameters, "gate", "qkv", source="qkv, Sec. III-A")
    lite: bool | None = other_default(CMAformerHyperparameters, "lite", False, source="off, Fig. 1")


class nnUNetTrainerCMAformer_paper(nnUNetTrainerCMAformer):
    """Eq. 2 with its ratio per voxel, cross-attention of queries, keys and values, the whole decoder in 3D too.

    SGD at 0.001, momentum 0.99, polynomial decay, which is nnU-Net's scheme. Prediction does not mirror. What the
    settings block names under "training" wins.
    """

    Hyperparameters: ClassVar[type] = CMAformerPaperHyperparameters
    hyperparameters: CMAformerPaperHyperparameters
    card: ClassVar[MethodCard] = replace(
        nnUNetTrainerCMAformer.card,
        extra_memory="its own network with its whole decoder, one copy of it, heads",
        extra_time="8.8 (3D), 5.2 (2D) in operations",
    )

    @classmethod
    def recipe_for(cls, hyperparameters: CMAformerNetworkHyperparameters) -> Recipe:
        return replace(RECIPE, mirrored_prediction=False)  # whatever the gate
