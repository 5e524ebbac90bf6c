"""CMAformer with the Lagrange-duality consistency and boundary-aware contrast.

Source: Zheng et al., "Lagrange Duality and Compound Multi-Attention Transformer for Semi-Supervised Medical Image
Segmentation" (arXiv:2409.07793). The losses are those of :class:`nnUNetTrainerLDC`; see docs/methods/cmaformer.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_ssl.trainers.cmaformer.network import CMAformerNetworkHyperparameters, build, check_levels
from nnunet_ssl.trainers.ldc.settings import LDCHyperparameters
from nnunet_ssl.trainers.ldc.trainer import nnUNetTrainerLDC
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.recipe import Recipe


@dataclass(frozen=True)
class CMAformerHyperparameters(CMAformerNetworkHyperparameters, LDCHyperparameters):
    """Those of the losses and those of the network."""


class nnUNetTrainerCMAformer(nnUNetTrainerLDC):
    """CMAformer, trained as :class:`nnUNetTrainerLDC` trains the plans' U-Net."""

    Hyperparameters: ClassVar[type] = CMAformerHyperparameters
    hyperparameters: CMAformerHyperparameters
    card: ClassVar[MethodCard] = MethodCard(
        paper="Zheng et al., CMAformer, arXiv:2409.07793",
        predicts="student (option: teacher)",
        dimensions="2D, 3D",
        extra_memory="its own network, one copy of it, heads",
        extra_time="2.5 (3D), 7.5 (2D) on a CPU",
    )
    has_deep_supervision: ClassVar[bool] = False
    requires_plain_logits: ClassVar[bool] = False  # of the network that the plans name, which this one replaces

    @classmethod
    def recipe_for(cls, hyperparameters: CMAformerHyperparameters) -> Recipe:
        return hyperparameters.recipe

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """CMAformer with the options of the settings block; it has no deep supervision."""
        hp = cls.settings_of(plans_manager.plans).hyperparameters
        return build(hp, configuration_manager, num_input_channels, num_output_channels)

    @classmethod
    def check_supported(cls, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        super().check_supported(plans, configuration, dataset_json)
        check_levels(cls.__name__, plans, configuration)
