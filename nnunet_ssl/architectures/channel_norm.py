"""Layer norm over the channels of a map."""

from __future__ import annotations

from torch import Tensor, nn

from nnunet_ssl.architectures.precision import float32_region


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each voxel, (B, C, *S) -> the same, in float32 and with the biased variance."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps)

    def forward(self, features: Tensor) -> Tensor:
        with float32_region(features.device):
            return super().forward(features.float().movedim(1, -1)).movedim(-1, 1)
