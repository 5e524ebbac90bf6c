"""3D UX-Net alone on the labelled cases: what DKUXNet's network owes to its backbone.

Source: Lee et al., "3D UX-Net" (ICLR 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_ssl.architectures.uxnet import UXNet, arguments_from_plans
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.configured import nnUNetTrainerConfigured
from nnunet_ssl.training.network import tried_on_plans
from nnunet_ssl.training.recipe import ADAMW_FOR_TRANSFORMERS, Recipe
from nnunet_ssl.training.settings import setting


@dataclass(frozen=True)
class UXNetHyperparameters:
    recompute: bool = setting(
        False, "less memory, a little more time: what lies between convolutions is computed again in the backward pass"
    )


class nnUNetTrainerUXNet(nnUNetTrainerConfigured):
    """nnU-Net's training of a 3D UX-Net with the plans' levels, features and kernels; AdamW, no deep supervision."""

    Hyperparameters: ClassVar[type] = UXNetHyperparameters
    recipe: ClassVar[Recipe] = Recipe(ADAMW_FOR_TRANSFORMERS, {"adamw": ADAMW_FOR_TRANSFORMERS})
    has_deep_supervision: ClassVar[bool] = False
    card: ClassVar[MethodCard] = MethodCard(
        paper="Lee et al., 3D UX-Net, ICLR 2023, labelled cases alone",
        predicts="the network, a 3D UX-Net",
        dimensions="2D, 3D",
        extra_memory="about 1.5 times in all",
        extra_time="about 1.5 (CPU)",
    )

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = False,
    ) -> UXNet:
        """:class:`UXNet` from any of nnU-Net's U-Nets in the plans."""
        arguments = {"recompute": cls.settings_of(plans_manager.plans).hyperparameters.recompute}
        arguments |= arguments_from_plans(
            UXNet,
            configuration_manager.network_arch_class_name,
            configuration_manager.network_arch_init_kwargs,
            configuration_manager.network_arch_init_kwargs_req_import,
        )
        arguments["deep_supervision"] = enable_deep_supervision
        return UXNet(num_input_channels, num_classes=num_output_channels, **arguments)

    @classmethod
    def check_supported(cls, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        super().check_supported(plans, configuration, dataset_json)
        manager = PlansManager(plans)
        chosen = manager.get_configuration(configuration)
        with tried_on_plans(cls.__name__, configuration):
            net = cls.build_network_architecture(manager, chosen, 1, 2)
            net.encoder.levels.check_size(chosen.patch_size)
