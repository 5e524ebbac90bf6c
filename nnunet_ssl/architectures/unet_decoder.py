"""Decoders of nnU-Net's U-Nets without their encoder, for networks in which one encoder serves several of them.

Source of the ways to upsample: MC-Net (Wu et al., MICCAI 2021) and MC-Net+ (Medical Image Analysis 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import Tensor, nn

from nnunet_ssl.architectures.vnet_parts import VNetDecoder

LINEAR = {2: "bilinear", 3: "trilinear"}


def decoder_alone(unet: Any, method: str) -> UNetDecoder:
    """The decoder of a U-Net, which from now on does not hold the encoder.

    Args:
        unet: whose decoder is taken, not copied.
        method: who asks, for the message.

    Raises:
        NotImplementedError: a network without nnU-Net's UNetDecoder.
    """
    decoder = getattr(unet, "decoder", None)
    if not isinstance(decoder, UNetDecoder):
        raise NotImplementedError(
            f"{method} needs a PlainConvUNet, ResidualEncoderUNet or VNet in the plans, not a {type(unet).__name__}"
        )
    if "encoder" in decoder._modules:  # otherwise copies and walks over the decoder's weights include the encoder
        del decoder.encoder
    return decoder


def feature_maps(decoder: Any, skips: Sequence[Tensor]) -> list[Tensor]:
    """What each stage of a U-Net's or V-Net's decoder makes, the finest last.

    Args:
        decoder: a UNetDecoder, whose skips are concatenated, or VNetDecoder, whose skips are added.
        skips: features (B, F, *S) of the encoder, the bottleneck last.
    """
    features, maps = skips[-1], []
    for upsample, stage, skip in zip(decoder.transpconvs, decoder.stages, reversed(skips[:-1]), strict=True):
        below = upsample(features)
        joined = decoder.join(below, skip) if isinstance(decoder, VNetDecoder) else torch.cat((below, skip), 1)
        features = stage(joined)
        maps.append(features)
    return maps


def interpolating_decoder(unet: Any, mode: str, method: str) -> UNetDecoder:
    """As :func:`decoder_alone`, with interpolation in place of transposed convolutions.

    A 1x1 convolution for the number of channels, then interpolation by the strides; in the other order the result would
    be the same at a higher price. What follows a transposed convolution follows here too: in a U-Net nothing, in a
    V-Net norm and activation.

    Args:
        unet: a fresh one, whose decoder is taken.
        mode: "linear" or "nearest".
        method: see :func:`decoder_alone`.
    """
    decoder = decoder_alone(unet, method)
    for level, upsample in enumerate(decoder.transpconvs):
        parts: list[Any] = [*upsample] if isinstance(upsample, nn.Sequential) else [upsample]
        transposed, *behind = parts
        channels, scale = (transposed.in_channels, transposed.out_channels), tuple(map(float, transposed.stride))
        resize = nn.Upsample(scale_factor=scale, mode=LINEAR[len(scale)] if mode == "linear" else mode)
        convolution = unet.encoder.conv_op(*channels, 1, bias=transposed.bias is not None)
        decoder.transpconvs[level] = nn.Sequential(convolution, resize, *behind).apply(unet.initialize)
    return decoder
