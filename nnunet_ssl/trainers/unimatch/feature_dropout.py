"""Features of which whole channels are dropped on their way from the encoder to the decoder."""

from __future__ import annotations

from typing import Any

from torch import nn

from nnunet_ssl.architectures.channel_dropout import ChannelDropout


class FeatureDropout(ChannelDropout):
    """Drops channels of every skip connection and of the bottleneck, for the last samples of a batch alone.

    Source: UniMatch (Yang et al., CVPR 2023), feature perturbation of its code for medical images.

    Args:
        network: not wrapped; its encoder hands a list of features to its decoder, as in nnU-Net's U-Nets.
        probability: of a channel to be dropped.

    Raises:
        NotImplementedError: any other network.
    """

    def __init__(self, network: Any, probability: float) -> None:
        if not isinstance(getattr(network, "decoder", None), nn.Module) or not hasattr(network, "encoder"):
            raise NotImplementedError(
                f"{type(network).__name__} has no encoder that hands its features to a decoder, so that none can be "
                "dropped. Set the hyper-parameter feature_dropout=null."
            )
        super().__init__({network.decoder: probability})
