"""Decoders of nnU-Net's U-Nets without their encoder, for networks in which one encoder serves several of them.

Source of the ways to upsample: MC-Net (Wu et al., MICCAI 2021) and MC-Net+ (Medical Image Analysis 2022).
"""

from __future__ import annotations

from typing import Any

from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import nn

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
            f"{method} needs a PlainConvUNet or ResidualEncoderUNet in the plans, not a {type(unet).__name__}"
        )
    if "encoder" in decoder._modules:  # otherwise copies and walks over the decoder's weights include the encoder
        del decoder.encoder
    return decoder


def interpolating_decoder(unet: Any, mode: str, method: str) -> UNetDecoder:
    """As :func:`decoder_alone`, with interpolation in place of transposed convolutions.

    A 1x1 convolution for the number of channels, then interpolation by the strides; in the other order the result would
    be the same at a higher price. Neither norm nor activation, as behind a transposed convolution.

    Args:
        unet: a fresh one, whose decoder is taken.
        mode: "linear" or "nearest".
        method: see :func:`decoder_alone`.
    """
    decoder = decoder_alone(unet, method)
    for level, transposed in enumerate(decoder.transpconvs):
        channels, scale = (transposed.in_channels, transposed.out_channels), tuple(map(float, transposed.stride))
        resize = nn.Upsample(scale_factor=scale, mode=LINEAR[len(scale)] if mode == "linear" else mode)
        convolution = unet.encoder.conv_op(*channels, 1, bias=transposed.bias is not None)
        decoder.transpconvs[level] = nn.Sequential(convolution, resize).apply(unet.initialize)
    return decoder
