"""Dual Networks as the authors' script trains them: the objective and optimisation behind the published numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from nnunet_ssl.losses.squared_dice import squared_dice_ce
from nnunet_ssl.trainers.dual_networks.settings import DualNetworksHyperparameters
from nnunet_ssl.trainers.dual_networks.trainer import nnUNetTrainerDualNetworks
from nnunet_ssl.training.published_recipes import PUBLISHED
from nnunet_ssl.training.recipe import Optimization, Recipe
from nnunet_ssl.training.settings import other_default

BATCH_SIZE = 2  # labelled and unlabelled each, released code
WEIGHT_DECAY = 1e-4


@dataclass(frozen=True)
class DualNetworksReleasedHyperparameters(DualNetworksHyperparameters):
    guard: bool = other_default(DualNetworksHyperparameters, "guard", False, source="off, as published")
    unlabeled_batch_size: int | None = other_default(
        DualNetworksHyperparameters, "unlabeled_batch_size", BATCH_SIZE, source="2, released code"
    )
    pseudo_label_weight: float = other_default(
        DualNetworksHyperparameters, "pseudo_label_weight", 0.0, source="0: no gradient, released code"
    )
    contrast_weight: float = other_default(
        DualNetworksHyperparameters, "contrast_weight", 0.0, source="0: no gradient, released code"
    )
    hard_target: bool = other_default(DualNetworksHyperparameters, "hard_target", True, source="hard, released code")
    detach_uncertainty: bool | None = other_default(
        DualNetworksHyperparameters, "detach_uncertainty", False, source="with gradient, released code"
    )
    disagreement_weight: float = other_default(
        DualNetworksHyperparameters, "disagreement_weight", 0.5, source="0.5, released code"
    )
    channel_dropout: float = other_default(
        DualNetworksHyperparameters, "channel_dropout", 0.5, source="0.5, released code"
    )


class nnUNetTrainerDualNetworks_released(nnUNetTrainerDualNetworks):
    """L = L_s^S + L_s^T + 0.5 (L_mis^S + L_mis^T) + L_une(hard target) + L_reg, all weights constant.

    In the authors' script the pseudo-label and the contrastive loss carry no gradient. L_s: cross-entropy and a Dice
    with squared denominators; L_mis: squared error where the confident foreground of the two differs. SGD at 0.01 with
    momentum 0.9, divided by 10 after 2500 and 5000 of 6000 steps; random crops; no deep supervision, clipping or mixed
    precision. What the settings block names under "training" wins. The networks
    are those of the plans; the authors' are `nnunet_ssl plans --network vnet16`.
    """

    Hyperparameters: ClassVar[type] = DualNetworksReleasedHyperparameters
    hyperparameters: DualNetworksReleasedHyperparameters
    recipe: ClassVar[Recipe] = replace(
        PUBLISHED["uamt"],  # Sec. 3.1
        optimizers={name: Optimization(name, weight_decay=WEIGHT_DECAY) for name in ("sgd", "adamw")},
    )

    def supervised(self, outputs: Any, target: Any) -> Tensor:
        """L_s of one network: cross-entropy and squared Dice."""
        return self.deep_supervised(self._squared_dice_ce, outputs, target)

    def _squared_dice_ce(self, logits: Tensor, target: Tensor) -> Tensor:
        return squared_dice_ce(self.targets.as_classes(logits), *self.label_maps(target))
