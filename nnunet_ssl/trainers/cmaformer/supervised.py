"""CMAformer alone: nnU-Net's training on the labelled cases with another network."""

from __future__ import annotations

from typing import ClassVar

from nnunet_ssl.trainers.cmaformer.network import CMAformerNetworkHyperparameters, TrainsCMAformer
from nnunet_ssl.training.card import MethodCard


class nnUNetTrainerCMAformerSupervised(TrainsCMAformer):
    """nnU-Net's loss, augmentation and schedule on the labelled cases; what tells the network from the losses."""

    Hyperparameters: ClassVar[type] = CMAformerNetworkHyperparameters
    card: ClassVar[MethodCard] = MethodCard(
        paper="Zheng et al., CMAformer, arXiv:2409.07793",
        predicts="the network",
        dimensions="2D, 3D",
        extra_memory="another network",
        extra_time="1.2 (3D), 1.3 (2D) in operations",
    )
