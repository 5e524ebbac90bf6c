"""The control of every comparison: nnU-Net on the labelled cases of the split, nothing else."""

from __future__ import annotations

from typing import ClassVar

from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.configured import nnUNetTrainerConfigured


class nnUNetTrainerSupervised(nnUNetTrainerConfigured):
    """Stock nnU-Net training, with the split and the training settings of the plans.

    Without a settings block it trains bit-identically to nnUNetTrainer.
    """

    card: ClassVar[MethodCard] = MethodCard(
        paper="Isensee et al., nnU-Net, Nature Methods 2021",
        predicts="the network",
        dimensions="2D, 3D",
        extra_memory="none",
        extra_time="1.0",
    )
