"""CMAformer with what the paper prints, where that can be trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nnunet_ssl.architectures.cmaformer import GATES
from nnunet_ssl.losses.lagrangian import DICE_FORMS
from nnunet_ssl.trainers.cmaformer.network import RECIPE
from nnunet_ssl.trainers.cmaformer.trainer import CMAformerHyperparameters, nnUNetTrainerCMAformer
from nnunet_ssl.training.recipe import Recipe
from nnunet_ssl.training.settings import setting


@dataclass(frozen=True)
class CMAformerPaperHyperparameters(CMAformerHyperparameters):
    dice_form: str = setting(
        "voxel", "sums before the ratio, or the ratio of each voxel", source="voxel, Eq. 2", choices=DICE_FORMS
    )
    gate: str = setting(
        "qkv",
        "of the decoder: one scalar per position, the same bounded, or cross-attention where it is affordable",
        source="qkv, Sec. III-A",
        choices=GATES,
    )
    lite: bool | None = setting(False, "cheap decoder and output; null: in 3D", source="off, Fig. 1")


class nnUNetTrainerCMAformer_paper(nnUNetTrainerCMAformer):
    """Eq. 2 with its ratio per voxel, cross-attention of queries, keys and values, the whole decoder in 3D too.

    SGD at 0.001, momentum 0.99, polynomial decay, which is nnU-Net's scheme. What the settings block names under
    "training" wins.
    """

    Hyperparameters: ClassVar[type] = CMAformerPaperHyperparameters
    hyperparameters: CMAformerPaperHyperparameters

    @classmethod
    def recipe_for(cls, hyperparameters: CMAformerHyperparameters) -> Recipe:
        return RECIPE  # whatever the gate
