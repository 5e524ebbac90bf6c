"""DKUXNet as close as possible to its paper and the released network, where the recommended defaults differ."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from nnunet_ssl.trainers.dkuxnet.settings import DKUXNetHyperparameters
from nnunet_ssl.trainers.dkuxnet.trainer import nnUNetTrainerDKUXNet
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.published_recipes import PUBLISHED
from nnunet_ssl.training.recipe import Recipe
from nnunet_ssl.training.settings import other_default

BATCH_SIZE = 1  # labelled and unlabelled each: "a batch size of 4, which cropped two training samples", Sec. 3.2
RELEASED_GROUPS = (16, 4)  # and the rest, released code
NUMBER_OF_GROUPS = (
    3  # "cluster outputs 3 x HWD", Fig. 1 and released code, also on the left atrium with its two classes
)


@dataclass(frozen=True)
class DKUXNetPaperHyperparameters(DKUXNetHyperparameters):
    guard: bool = other_default(DKUXNetHyperparameters, "guard", False, source="off, as published")
    unlabeled_batch_size: int | None = other_default(
        DKUXNetHyperparameters, "unlabeled_batch_size", BATCH_SIZE, source="1, Sec. 3.2"
    )
    queries: int = other_default(DKUXNetHyperparameters, "queries", 128, source="128, released code")
    pixel_width: int = other_default(DKUXNetHyperparameters, "pixel_width", 256, source="256, released code")
    mask_width: int = other_default(DKUXNetHyperparameters, "mask_width", 128, source="128, released code")
    response_scale: float = other_default(DKUXNetHyperparameters, "response_scale", 0.1, source="0.1, released code")
    class_head: str = other_default(DKUXNetHyperparameters, "class_head", "flat", source="flat, released code")
    norms: str = other_default(DKUXNetHyperparameters, "norms", "batch", source="batch, released code")
    groups: int | None = other_default(
        DKUXNetHyperparameters, "groups", None, source="null: 3 with two classes too, Fig. 1 and released code"
    )
    contrast: str = other_default(DKUXNetHyperparameters, "contrast", "sample", source="sample or voxel, Eq. 4")
    contrast_channels: str = other_default(
        DKUXNetHyperparameters, "contrast_channels", "foreground", source="all, Eq. 4; recommended with negatives"
    )


class nnUNetTrainerDKUXNet_paper(nnUNetTrainerDKUXNet):
    """One labelled and one unlabelled patch per step, in two views; AdamW at a constant 1e-4.

    Weight decay 0.01 of all parameters, uniform random crops, cross-entropy and Dice of all classes, no clipping, no
    mixed precision, no mirroring in prediction. What the settings block names under "training" wins.
    """

    Hyperparameters: ClassVar[type] = DKUXNetPaperHyperparameters
    hyperparameters: DKUXNetPaperHyperparameters
    card: ClassVar[MethodCard] = replace(nnUNetTrainerDKUXNet.card, extra_time="2.71 (3D), 3.14 (2D) in operations")
    published_groups: ClassVar[int] = NUMBER_OF_GROUPS
    recipe: ClassVar[Recipe] = replace(PUBLISHED["dkuxnet"], optimizers=nnUNetTrainerDKUXNet.recipe.optimizers)

    @staticmethod
    def default_group_sizes(queries: int, groups: int) -> list[int]:
        first = list(RELEASED_GROUPS[: groups - 1])
        first += [RELEASED_GROUPS[-1]] * (groups - 1 - len(first))
        return [*first, queries - sum(first)]

    def _build_loss(self) -> nn.Module:
        """MONAI's, as released; nnU-Net's own with regions or an ignore label, which that does not know."""
        if self.label_manager.has_regions or self.label_manager.has_ignore_label:
            return super()._build_loss()
        from monai.losses import DiceCELoss  # here: importing MONAI takes most of a second

        return DiceCELoss(to_onehot_y=True, softmax=True, smooth_nr=1e-5, smooth_dr=1e-5)
