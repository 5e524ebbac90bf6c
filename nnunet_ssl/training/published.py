"""What most publications train with instead of nnU-Net's recipe."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoDA import nnUNetTrainerNoDA
from torch import nn

from nnunet_ssl.training.base import nnUNetTrainerSemiSupervised


class nnUNetTrainerPublished(nnUNetTrainerNoDA, nnUNetTrainerSemiSupervised):
    """Uniform random crops without augmentation, a batch size of its own, float32.

    No deep supervision, no gradient clipping, no mirroring in prediction. Stands before the method among the bases.
    """

    labeled_patches: ClassVar[int]
    """Labelled patches per step, whatever the plans say."""

    def set_up(self) -> None:
        super().set_up()
        self.enable_deep_supervision = False
        self.oversample_foreground_percent = 0.0  # uniform crops
        self.grad_scaler = None

    def _set_batch_size_and_oversample(self) -> None:
        self.configuration_manager.configuration["batch_size"] = self.labeled_patches
        super()._set_batch_size_and_oversample()

    def clipping_groups(self) -> list[list[nn.Parameter]]:
        return []

    def mixed_precision(self) -> AbstractContextManager[Any]:
        return nullcontext()
