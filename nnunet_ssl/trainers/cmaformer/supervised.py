"""CMAformer alone: nnU-Net's training on the labelled cases with another network."""

from __future__ import annotations

from typing import Any, ClassVar

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_ssl.trainers.cmaformer.network import CMAformerNetworkHyperparameters, build, check_levels
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.configured import nnUNetTrainerConfigured
from nnunet_ssl.training.recipe import Recipe


class nnUNetTrainerCMAformerSupervised(nnUNetTrainerConfigured):
    """nnU-Net's loss, augmentation and schedule on the labelled cases; what tells the network from the losses."""

    Hyperparameters: ClassVar[type] = CMAformerNetworkHyperparameters
    card: ClassVar[MethodCard] = MethodCard(
        paper="Zheng et al., CMAformer, arXiv:2409.07793",
        predicts="the network",
        dimensions="2D, 3D",
        extra_memory="another network",
        extra_time="1.6 (3D), 5.4 (2D) on a CPU",
    )
    has_deep_supervision: ClassVar[bool] = False

    @classmethod
    def recipe_for(cls, hyperparameters: CMAformerNetworkHyperparameters) -> Recipe:
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
