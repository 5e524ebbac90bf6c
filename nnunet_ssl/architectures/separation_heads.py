"""What SS-Net adds to a network while it trains: heads that embed features of voxels and weigh them.

Source: SS-Net (Wu et al., MICCAI 2022), its code; there with batch norm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SeparationHeads(nn.Module):
    """A projection, a prediction from it, and two selectors for each class, which score features and memories.

    Layer norms, so that a voxel's embedding does not depend on the others.

    Args:
        channels: of the features.
        classes: F, foreground classes or regions.
        size: D of an embedding.
    """

    def __init__(self, channels: int, classes: int, size: int = 32) -> None:
        super().__init__()
        self.projection, self.prediction = (_perceptron(n, size, size, nn.ReLU()) for n in (channels, size))
        self.feature_selectors, self.memory_selectors = (
            nn.ModuleList(_perceptron(size, size, 1, nn.LeakyReLU(0.2)) for _ in range(classes)) for _ in range(2)
        )

    def forward(self, rows: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of N voxels and M memories per class.

        Args:
            rows: (F, N, channels) float32.
            memory: (F, M, D).

        Returns:
            predicted embeddings (F, N, D), their scores (F, N) without gradient to them, and the memories' (F, M).
        """
        predicted = self.prediction(self.projection(rows))
        return predicted, _scores(self.feature_selectors, predicted.detach()), self.scores_of_memory(memory)

    def scores_of_memory(self, vectors: Tensor) -> Tensor:
        """(F, M) of projections (F, M, D)."""
        return _scores(self.memory_selectors, vectors)


def _scores(selectors: nn.ModuleList, vectors: Tensor) -> Tensor:
    return torch.stack([select(own)[:, 0] for select, own in zip(selectors, vectors, strict=True)])


def _perceptron(inputs: int, hidden: int, outputs: int, nonlinearity: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nonlinearity, nn.Linear(hidden, outputs))
