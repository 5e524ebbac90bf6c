"""How hard each class is to learn for one network, followed on the labelled patches.

Source: DiffDW of DHC (Wang & Li, MICCAI 2023), its code.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nnunet_ssl.losses.class_sums import sum_by_class
from nnunet_ssl.losses.class_weights import TINY, DifficultyWeights
from nnunet_ssl.trainers.cps.balance import Balance
from nnunet_ssl.training.base import nnUNetTrainerSemiSupervised
from nnunet_ssl.training.distributed import sum_over_ranks
from nnunet_ssl.training.targets import hard_labels


class Difficulty(Balance):
    """Weights from the Dice that each class has lately gained, lost and still lacks.

    Args:
        trainer: whose hyper-parameters hold.
        least: weight of a class.
    """

    def __init__(self, trainer: nnUNetTrainerSemiSupervised, least: float) -> None:
        super().__init__("difficulty", trainer)
        hp = trainer.hyperparameters
        self.least, self.keep_absent = least, hp.keep_absent
        self.followed = DifficultyWeights(
            trainer.targets.channels, hp.accumulate, hp.difficulty_exponent, hp.skip_first, trainer.device
        )
        self.state = {name: getattr(self.followed, name) for name in self.followed.state_dict()}  # moves in place

    def weights(self) -> Tensor:
        return self.followed.weights().clamp(min=self.least)

    @torch.no_grad()
    def observe(self, decided: Tensor, valid: Tensor, probabilities: Tensor, label: Tensor) -> None:
        dice, present = hard_dice(hard_labels(probabilities), label, probabilities.shape[1])
        self.followed.update(dice, present if self.keep_absent else None)

    def load(self, state: dict[str, Any]) -> None:
        self.followed.load_state_dict(state)


@torch.no_grad()
def hard_dice(decided: Tensor, label: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """(Dice of each class, whether it occurs), (K,) each, over the batches of all ranks; 0.5 for a class that does not.

    Args:
        decided: (B, 1, *S) int64, the predicted class.
        label: (B, 1, *S) int64, -1 where it does not count.
        classes: K.
    """
    counted = (label >= 0).float()
    true = label.clamp(min=0)
    groups = ((counted * (decided == true), true), (counted, decided), (counted, true))
    counts = torch.stack([sum_by_class(values, of, classes) for values, of in groups])
    hits, predicted, annotated = sum_over_ranks(counts)
    voxels = predicted + annotated
    return (2 * hits + TINY) / (voxels + 2 * TINY), voxels > 0
