"""PLGCL as its paper describes it, where that differs from the recommended defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from nnunet_ssl.trainers.plgcl.settings import PLGCLHyperparameters
from nnunet_ssl.trainers.plgcl.trainer import nnUNetTrainerPLGCL
from nnunet_ssl.training.network import freeze_unused_heads
from nnunet_ssl.training.settings import setting

LEARNING_RATE = 1e-4  # Sec. 4.2
BATCH_SIZE_2D = 8  # labelled and unlabelled each, 16 in Sec. 4.2


@dataclass(frozen=True)
class PLGCLPaperHyperparameters(PLGCLHyperparameters):
    warmup_epochs: int | None = setting(
        50, "epochs without contrast; none: 5 % of the training, at least 1", source="50, Sec. 3.4", low=0
    )
    covariance_schedule: str = setting(
        "constant",
        "lambda rises after the warm-up, or is constant",
        source="constant, Sec. 4.2",
        choices=("linear", "constant"),
    )
    queries: str = setting(
        "anchor", "patches that are contrasted", source="anchor, Sec. 3.1", choices=("all", "anchor")
    )
    confidence_source: str = setting(
        "student",
        "network whose probabilities attend unlabelled images",
        source="student, Sec. 3.1",
        choices=("teacher", "student"),
    )
    key_encoder: str = setting(
        "student",
        "network that embeds the keys; the teacher sees them augmented",
        source="student, Secs. 3.1 and 3.2",
        choices=("teacher", "student"),
    )
    supervised_loss: str = setting(
        "ce", "nnU-Net's own loss, or its cross-entropy alone", source="ce, Eq. 7", choices=("nnunet", "ce")
    )


class nnUNetTrainerPLGCL_paper(nnUNetTrainerPLGCL):
    """Adam at a constant 1e-4, cross-entropy alone, 50 epochs of warm-up, constant lambda; in 2D 8 and 8 slices.

    Queries are the anchors, keys and confidence come from the student. What the settings block names under "training"
    wins.
    """

    Hyperparameters: ClassVar[type] = PLGCLPaperHyperparameters
    hyperparameters: PLGCLPaperHyperparameters

    def set_up(self) -> None:
        super().set_up()
        if self.settings.training.initial_lr is None and self.settings.training.optimizer is None:
            self.initial_lr = LEARNING_RATE
        if self.settings.training.weight_decay is None and self.settings.training.optimizer is None:
            self.weight_decay = 0.0

    def _set_batch_size_and_oversample(self) -> None:
        if len(self.configuration_manager.patch_size) == 2:
            self.configuration_manager.configuration["batch_size"] = BATCH_SIZE_2D
        super()._set_batch_size_and_oversample()

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        if self.settings.training.optimizer is not None:
            return super().configure_optimizers()
        freeze_unused_heads(self.network)
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(parameters, self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs, exponent=0)  # no decay is stated
