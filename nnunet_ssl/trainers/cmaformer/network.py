"""CMAformer as the network of a trainer, whatever it is trained with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_ssl.architectures.cmaformer import GATES, PLANS_KEYS, CMAformer
from nnunet_ssl.training.configured import nnUNetTrainerConfigured
from nnunet_ssl.training.recipe import Optimization, Recipe
from nnunet_ssl.training.settings import setting

RATE = 1e-3  # Sec. IV-A
RECIPE = Recipe(Optimization(rate=RATE), {name: Optimization(name, rate=RATE) for name in ("sgd", "adamw")})


@dataclass(frozen=True)
class CMAformerNetworkHyperparameters:
    """What shapes the network; read in prediction too."""

    lite: bool | None = setting(
        None, "cheap decoder and output; null: in 3D", source="off in the released code; recommended"
    )
    gate: str = setting(
        "scalar",
        "of the decoder: one scalar per position, the same bounded, or cross-attention where it is affordable",
        source="scalar, released code; qkv, Sec. III-A",
        choices=GATES,
    )
    position_bias: bool = setting(True, "relative position bias of the attention", source="on, Eq. 1")
    transformer_layers: int = setting(3, "of encoder and decoder, each", source="3, released code", low=1)
    attention_heads: int = setting(8, "heads of the attention at most", source="8, released code", low=1)

    @property
    def recipe(self) -> Recipe:
        """The paper's rate, since the scalar gate is unbounded; with the bounded one nnU-Net's holds."""
        return Recipe() if self.gate == "sigmoid" else RECIPE


class TrainsCMAformer(nnUNetTrainerConfigured):
    """The network of both trainers, with its recipe; comes before the class of the losses."""

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
    ) -> CMAformer:
        """The levels of the plans' U-Net with the options of the settings block; it has no deep supervision."""
        hp: CMAformerNetworkHyperparameters = cls.settings_of(plans_manager.plans).hyperparameters
        return CMAformer.from_plans(
            configuration_manager.network_arch_init_kwargs,
            configuration_manager.patch_size,
            num_input_channels,
            num_output_channels,
            lite=hp.lite,
            gate=hp.gate,
            position_bias=hp.position_bias,
            transformer_layers=hp.transformer_layers,
            heads=hp.attention_heads,
        )

    @classmethod
    def check_supported(cls, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        super().check_supported(plans, configuration, dataset_json)
        manager = PlansManager(plans).get_configuration(configuration)
        missing = [key for key in PLANS_KEYS if key not in manager.network_arch_init_kwargs]
        if missing:
            raise NotImplementedError(
                f"{cls.__name__} does not support {manager.network_arch_class_name}: it needs plans with the levels "
                f"of a U-Net ({', '.join(missing)} is missing)."
            )
