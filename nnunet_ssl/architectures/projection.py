"""From patches to embeddings of unit length: part of an encoder, and a small head."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def pooled_features(encoder: nn.Module, images: Tensor, stage: int) -> Tensor:
    """Mean over space of the features of one stage, (N, channels of the stage), float32.

    Args:
        encoder: with ``stages`` and perhaps a ``stem``, as those of dynamic_network_architectures.
        images: (N, C, *S).
        stage: counted from 0; deeper ones do not run.
    """
    stem = getattr(encoder, "stem", None)
    features = images if stem is None else stem(images)
    for block in encoder.stages[: stage + 1]:  # type: ignore[index]
        features = block(features)
    return features.flatten(2).float().mean(2)


class ProjectionHead(nn.Module):
    """Linear, LayerNorm, LeakyReLU, Linear, unit length.

    Source: PLGCL (Basak & Yin, CVPR 2023), "shallow FC layer" after SimCLR, width and size as in its released code. No
    batch norm, which needs several patches and mixes ranks.

    Args:
        channels: of the pooled features.
        dimensions: of the embedding.
    """

    def __init__(self, channels: int, dimensions: int = 128) -> None:
        super().__init__()
        self.hidden = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.out = nn.Linear(channels, dimensions)

    def forward(self, features: Tensor) -> Tensor:
        """(N, channels) -> (N, dimensions)."""
        return F.normalize(self.out(F.leaky_relu(self.norm(self.hidden(features)), 0.01)), dim=1)
