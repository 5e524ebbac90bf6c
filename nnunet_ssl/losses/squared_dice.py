"""Cross-entropy and Dice with squared denominators, of V-Net and its successors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_ssl.losses.precision import at_least_float32


def squared_dice(logits: Tensor, target: Tensor, valid: Tensor | None = None, smooth: float = 1e-5) -> Tensor:
    """One minus the mean over foreground classes of (2 sum p y + s) / (sum p^2 + sum y^2 + s), over the whole batch.

    Source: the code published with Lu et al., "Semi-supervised medical image segmentation via dual networks".

    Args:
        logits: (B, K, *S); receives the gradient.
        target: (B, 1, *S), class indices of any dtype; may hold anything where not valid.
        valid: (B, 1, *S), true or 1 where a voxel counts; ``None`` counts all.
        smooth: s.

    Returns:
        Scalar, float32 (float64 for float64 logits).
    """
    probability = at_least_float32(logits).softmax(1)[:, 1:]
    classes = torch.arange(1, logits.shape[1], device=logits.device).view(1, -1, *[1] * (logits.ndim - 2))
    truth = target == classes
    if valid is not None:
        truth, probability = truth & valid.bool(), probability * valid
    everywhere = [0, *range(2, logits.ndim)]
    overlap = (probability * truth).sum(everywhere)
    volume = torch.square(probability).sum(everywhere) + truth.sum(everywhere)
    return 1.0 - ((2.0 * overlap + smooth) / (volume + smooth)).mean()


def squared_dice_ce(logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over the valid voxels plus :func:`squared_dice`."""
    logits = at_least_float32(logits)
    counted = torch.ones_like(target, dtype=torch.bool) if valid is None else valid.bool()
    error = F.cross_entropy(logits, torch.where(counted, target, 0)[:, 0].long(), reduction="none").unsqueeze(1)
    return (error * counted).sum() / counted.sum().clamp(min=1) + squared_dice(logits, target, valid)
