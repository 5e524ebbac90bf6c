"""DHC: cross pseudo supervision between two networks whose classes weigh differently.

Source: Wang & Li, "Dual-debiased Heterogeneous Co-training Framework for Class-Imbalanced Semi-Supervised Medical Image
Segmentation" (MICCAI 2023), its code. What is recommended here: docs/methods/dhc.md.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from nnunet_ssl.losses.balanced import weighted_dice
from nnunet_ssl.losses.class_weights import distribution_weights
from nnunet_ssl.trainers.cps.balance import Balance
from nnunet_ssl.trainers.cps.trainer import nnUNetTrainerCPS
from nnunet_ssl.trainers.dhc.difficulty import Difficulty
from nnunet_ssl.trainers.dhc.settings import DHCHyperparameters
from nnunet_ssl.training.card import MethodCard


class nnUNetTrainerDHC(nnUNetTrainerCPS):
    """L = l_W1(z_1, y) + l_W2(z_2, y) + w r(progress) { CE_W1(z_1, argmax z_2) + CE_W2(z_2, argmax z_1) }.

    The cross term is on all patches. l_W: cross-entropy and Dice with weights W of the classes. W1: how hard a class is
    to learn (DiffDW), W2: how rare it is in what the second network predicts (DistDW).
    """

    Hyperparameters: ClassVar[type] = DHCHyperparameters
    hyperparameters: DHCHyperparameters
    card: ClassVar[MethodCard] = MethodCard(
        paper="Wang & Li, DHC, MICCAI 2023",
        predicts="first network (option: second)",
        dimensions="2D, 3D",
        extra_memory="a second network",
        extra_time="about 2",
    )

    def build_balances(self) -> list[Balance]:
        hp, classes = self.hyperparameters, self.targets.channels
        least, count = hp.weight_floor * classes, 1.0 if hp.keep_absent else 0.0

        def by_rarity(counts: Tensor) -> Tensor:
            return distribution_weights(counts, count).clamp(min=least)

        return [Difficulty(self, least), Balance("distribution", self, by_rarity, hp.dist_momentum)]

    def supervise(self, outputs: Any, target: Any, balance: Balance) -> Tensor:
        weights = balance.weights()
        if weights is None or not self.hyperparameters.weighted_sup:
            return super().supervise(outputs, target, balance)
        return self.deep_supervised(partial(self.weighted_loss, weights), outputs, target)

    def weighted_loss(self, weights: Tensor, logits: Tensor, target: Tensor) -> Tensor:
        """l_W at one resolution."""
        label, counted = self.targets.labels(target).long(), self.targets.counted(target)
        cross_entropy = self.targets.pseudo_supervision("ce", logits, label, counted, counted, weights)
        return cross_entropy + weighted_dice(logits, label, weights, counted)
