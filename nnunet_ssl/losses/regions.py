"""Regions (overlapping classes) as two-class problems, so that losses written for a softmax hold for them too."""

from __future__ import annotations

import torch
from torch import Tensor


def as_two_classes(logits: Tensor) -> Tensor:
    """Logits of regions (B, R, *S) -> of two classes (B * R, 2, *S), whose softmax is (1 - sigmoid, sigmoid)."""
    return torch.stack((torch.zeros_like(logits), logits), 2).flatten(0, 1)


def for_each_region(volume: Tensor, regions: int) -> Tensor:
    """A map (B, 1, *S) -> (B * R, 1, *S), in the order of :func:`as_two_classes`."""
    return volume.expand(-1, regions, *volume.shape[2:]).flatten(0, 1).unsqueeze(1)
