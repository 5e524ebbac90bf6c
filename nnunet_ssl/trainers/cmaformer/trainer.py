"""CMAformer with the Lagrange-duality consistency and boundary-aware contrast.

Source: Zheng et al., "Lagrange Duality and Compound Multi-Attention Transformer for Semi-Supervised Medical Image
Segmentation" (arXiv:2409.07793). The losses are those of :class:`nnUNetTrainerLDC`; see docs/methods/cmaformer.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nnunet_ssl.trainers.cmaformer.network import CMAformerNetworkHyperparameters, TrainsCMAformer
from nnunet_ssl.trainers.ldc.settings import LDCHyperparameters
from nnunet_ssl.trainers.ldc.trainer import nnUNetTrainerLDC
from nnunet_ssl.training.card import MethodCard


@dataclass(frozen=True)
class CMAformerHyperparameters(CMAformerNetworkHyperparameters, LDCHyperparameters):
    """Those of the losses and those of the network."""


class nnUNetTrainerCMAformer(TrainsCMAformer, nnUNetTrainerLDC):
    """CMAformer, trained as :class:`nnUNetTrainerLDC` trains the plans' U-Net."""

    Hyperparameters: ClassVar[type] = CMAformerHyperparameters
    hyperparameters: CMAformerHyperparameters
    card: ClassVar[MethodCard] = MethodCard(
        paper="Zheng et al., CMAformer, arXiv:2409.07793",
        predicts="student (option: teacher)",
        dimensions="2D, 3D",
        extra_memory="its own network, one copy of it, heads",
        extra_time="1.6 (3D), 1.7 (2D) in operations",
    )
    requires_plain_logits: ClassVar[bool] = False  # of the network that the plans name, which this one replaces
