"""V-Net as the semi-supervised literature trains it: convolutions resample, skips are added.

Source: Milletari et al., "V-Net" (3DV 2016), without its residual connections, in the form of UA-MT's released code
(Yu et al., MICCAI 2019), with 16 features at the finest resolution; DHC and SKCDF use 32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from dynamic_network_architectures.architectures.abstract_arch import AbstractDynamicNetworkArchitectures
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import Tensor, nn

from nnunet_ssl.architectures.vnet_parts import PerStage, VNetDecoder, VNetEncoder


def xavier(module: nn.Module) -> None:
    """Xavier-normal weights of convolutions; all else stays PyTorch's. Source: released code of SKCDF."""
    if isinstance(module, (nn.Conv2d, nn.Conv3d)):
        nn.init.xavier_normal_(module.weight)


INITIALIZATIONS: dict[str, Callable[[nn.Module], None]] = {"he": PlainConvUNet.initialize, "xavier": xavier}


class VNet(AbstractDynamicNetworkArchitectures):
    """A V-Net with the constructor of PlainConvUNet, so that plans can name it.

    Differs from PlainConvUNet in three ways: a convolution of the stride's size changes the resolution on the way down
    as on the way up, with norm and activation of its own, in addition to the convolutions of the stage; skips are
    added, not concatenated; dropout acts at the bottleneck and before the head, nowhere else.

    Args:
        input_channels: C.
        n_stages: resolutions.
        features_per_stage, kernel_sizes, strides: one per stage, or one for all.
        conv_op: nn.Conv2d or nn.Conv3d.
        n_conv_per_stage: convolutions of each stage beside the resampling one; V-Net: 1 2 3 3 3.
        num_classes: K.
        n_conv_per_stage_decoder: the same, the coarsest first; V-Net: 3 3 2 1.
        conv_bias, norm_op, norm_op_kwargs, nonlin, nonlin_kwargs, nonlin_first: as of PlainConvUNet.
        dropout_op, dropout_op_kwargs: such as nn.Dropout3d with {"p": 0.5}.
        deep_supervision: logits of every resolution but the coarsest, the finest first.
        weight_init: "he", nnU-Net's, or "xavier", see :func:`xavier`.

    Raises:
        ValueError: a first stage with a stride; numbers of convolutions that do not fit the stages; an unknown
            ``weight_init``.
    """

    def __init__(
        self,
        input_channels: int,
        n_stages: int,
        features_per_stage: int | Sequence[int],
        conv_op: type[nn.Module],
        kernel_sizes: PerStage,
        strides: PerStage,
        n_conv_per_stage: int | Sequence[int],
        num_classes: int,
        n_conv_per_stage_decoder: int | Sequence[int],
        conv_bias: bool = True,
        norm_op: type[nn.Module] | None = None,
        norm_op_kwargs: dict[str, Any] | None = None,
        dropout_op: type[nn.Module] | None = None,
        dropout_op_kwargs: dict[str, Any] | None = None,
        nonlin: type[nn.Module] | None = nn.ReLU,
        nonlin_kwargs: dict[str, Any] | None = None,
        deep_supervision: bool = False,
        nonlin_first: bool = False,
        weight_init: str = "he",
    ) -> None:
        super().__init__()
        if weight_init not in INITIALIZATIONS:
            raise ValueError(f"weight_init must be one of {', '.join(INITIALIZATIONS)}, got {weight_init!r}")
        self.initialize = INITIALIZATIONS[weight_init]  # nnU-Net applies it to what the plans name
        self.key_to_encoder, self.key_to_stem = "encoder.stages", "encoder.stages.0"
        self.keys_to_in_proj: Sequence[str] = (
            "encoder.stages.0.0.convs.0.conv",
            "encoder.stages.0.0.convs.0.all_modules.0",
        )
        at_bottleneck, before_head = (
            None if dropout_op is None else dropout_op(**(dropout_op_kwargs or {})) for _ in range(2)
        )
        self.encoder = VNetEncoder(
            input_channels,
            n_stages,
            features_per_stage,
            conv_op,
            kernel_sizes,
            strides,
            n_conv_per_stage,
            conv_bias=conv_bias,
            norm_op=norm_op,
            norm_op_kwargs=norm_op_kwargs,
            nonlin=nonlin,
            nonlin_kwargs=nonlin_kwargs,
            nonlin_first=nonlin_first,
            dropout=at_bottleneck,
        )
        self.decoder = VNetDecoder(
            self.encoder, num_classes, n_conv_per_stage_decoder, deep_supervision, nonlin_first, before_head
        )

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Images (B, C, *P) -> logits (B, K, *P), or with deep supervision one per resolution, the finest first."""
        logits: Tensor | list[Tensor] = self.decoder(self.encoder(images))
        return logits

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> np.int64:
        """Values in all feature maps of an input (without batch and channels), for nnU-Net's planners."""
        return self.encoder.compute_conv_feature_map_size(input_size) + self.decoder.compute_conv_feature_map_size(
            input_size
        )


__all__ = ["VNet"]
