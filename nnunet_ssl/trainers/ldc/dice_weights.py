"""The weights of the foreground classes in the Dice of LDC."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nnunet_ssl.data.class_counts import count_labels
from nnunet_ssl.losses.lagrangian import PAPER_WEIGHTS, frequency_class_weights
from nnunet_ssl.training.base import nnUNetTrainerSemiSupervised


class DiceWeights:
    """w_c (F,) of the foreground classes, computed when first asked for: the trainer must know its fold by then.

    Args:
        trainer: whose labelled cases are counted, where the rule depends on them.
        rule: uniform; frequency; auto: the paper's for two classes, the larger for the rarer one, otherwise uniform.
    """

    def __init__(self, trainer: nnUNetTrainerSemiSupervised, rule: str) -> None:
        self.trainer, self.rule = trainer, rule
        self.weights: Tensor | None = None

    def __call__(self) -> Tensor:
        if self.weights is None:
            weights = self._by_rule(self.trainer.targets.foreground)
            self.trainer.print_to_log_file("Weights of the classes in the Dice:", [round(w, 4) for w in weights])
            self.weights = torch.tensor(weights, device=self.trainer.device)
        return self.weights

    def _by_rule(self, classes: Sequence[Sequence[int]]) -> Sequence[float]:
        if self.rule == "uniform" or (self.rule == "auto" and len(classes) != 2):
            return (1.0 / len(classes),) * len(classes)
        counts = count_labels(self.trainer.preprocessed_dataset_folder, self.trainer.do_split()[0])
        voxels = [sum(counts.get(value, 0) for value in values) for values in classes]
        if self.rule == "frequency":
            return frequency_class_weights(voxels)
        return PAPER_WEIGHTS if voxels[0] >= voxels[-1] else PAPER_WEIGHTS[::-1]
