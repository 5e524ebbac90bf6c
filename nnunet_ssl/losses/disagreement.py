"""Squared error where two networks disagree about confident foreground of labelled patches.

Source: the code published with Lu et al., "Semi-supervised medical image segmentation via dual networks"; the paper has
no such term.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_ssl.losses.precision import at_least_float32

CONFIDENT = 0.6


@torch.no_grad()
def disagreement(logits_a: Tensor, logits_b: Tensor, threshold: float = CONFIDENT) -> Tensor:
    """Where the confident foreground classes of two networks differ.

    A voxel of confident foreground has a foreground class as the most probable one, with at least ``threshold``; any
    other voxel counts as background.

    Args:
        logits_a, logits_b: (B, K, *S).

    Returns:
        (B, 1, *S) bool.
    """

    def confident_class(logits: Tensor) -> Tensor:
        probability, label = logits.float().softmax(1).max(1, keepdim=True)
        return torch.where(probability >= threshold, label, 0)

    return confident_class(logits_a) != confident_class(logits_b)


def foreground_mse(logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean over the masked voxels of the squared error of the softmax, averaged over foreground classes.

    Args:
        logits: (B, K, *S); receives the gradient.
        target: (B, 1, *S), class indices of any dtype; may hold anything where masked out.
        mask: (B, 1, *S) bool, see :func:`disagreement`. Empty gives 0, still connected.

    Returns:
        Scalar, float32 (float64 for float64 logits).
    """
    probability = at_least_float32(logits).softmax(1)
    classes = torch.arange(1, logits.shape[1], device=logits.device).view(1, -1, *[1] * (logits.ndim - 2))
    error = torch.square(probability[:, 1:] - (target == classes).to(probability.dtype)).mean(1, keepdim=True)
    return torch.where(mask, error, 0.0).sum() / mask.sum().clamp(min=1)
