"""CMAformer as the network of a trainer, whatever it is trained with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_ssl.architectures.cmaformer import GATES, NORMS, PLANS_KEYS, CMAformer, has_whole_decoder
from nnunet_ssl.training.configured import nnUNetTrainerConfigured
from nnunet_ssl.training.recipe import Optimization, Recipe
from nnunet_ssl.training.settings import BLOCK, setting, settings_name

RATE = 1e-3  # Sec. IV-A
RECIPE = Recipe(Optimization(rate=RATE), {name: Optimization(name, rate=RATE) for name in ("sgd", "adamw")})


@dataclass(frozen=True)
class CMAformerNetworkHyperparameters:
    """What shapes the network; read in prediction too."""

    lite: bool | None = setting(
        None,
        "cheap decoder and output; null: on, and as they were for 2D checkpoints from before it was on there",
        source="off in the released code; recommended",
    )
    gate: str = setting(
        "scalar",
        "of the decoder: one scalar per position, the same bounded, cross-attention where it is affordable, or none",
        source="scalar, released code; qkv, Sec. III-A",
        choices=GATES,
    )
    position_bias: bool = setting(True, "relative position bias of the attention", source="on, Eq. 1")
    transformer_layers: int = setting(3, "of encoder and decoder, each; 0: none", source="3, released code", low=0)
    attention_heads: int = setting(8, "heads of the attention at most", source="8, released code", low=1)
    norms: str = setting(
        "plans",
        "of maps: the plans' norm, or batch norm",
        source="batch, Sec. III-A and released code; recommended",
        choices=NORMS,
    )

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
            norms=hp.norms,
        )

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        self._keep_layout(filename_or_checkpoint)
        super().load_checkpoint(filename_or_checkpoint)

    def _keep_layout(self, filename: str) -> None:
        """Before a network is built to go on with 2D weights from before ``lite`` was the default there.

        Their decoder is whole, which the plans do not say: from now on those of this training run do.
        """
        if self.was_initialized or self.hyperparameters.lite is not None:
            return
        checkpoint = torch.load(filename, map_location="cpu", mmap=True, weights_only=False)
        if has_whole_decoder(checkpoint["network_weights"]):
            block = self.plans_manager.plans.setdefault(BLOCK, {})
            settings = block.setdefault("hyperparameters", {}).setdefault(settings_name(type(self).__name__), {})
            settings["lite"] = False

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
