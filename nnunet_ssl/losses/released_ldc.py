"""The losses as the authors' code computes them: one multiplier for all classes, and a contrast of unrelated images.

Source: the code published with Zheng et al. (arXiv:2409.07793). They act on labelled images alone. The one multiplier
belongs to the mean over all classes, which a softmax fixes; the squared error acts on logits, and pulls against the
cross-entropy; the contrast calls the a-th unlabelled and the a-th labelled image of a batch alike, which are two that
happen to meet. For comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_ssl.losses.lagrangian import SMOOTH, default_class_weights
from nnunet_ssl.losses.precision import at_least_float32


class ReleasedTerms(NamedTuple):
    """Scalars: the loss 0.3 bce + 0.5 dice + lambda h + 0.2 mse, and its parts."""

    loss: Tensor
    bce: Tensor
    dice: tuple[Tensor, ...]
    excess: Tensor
    mse: Tensor


def released_ldc(
    logits: Tensor,
    target: Tensor,
    multiplier: float | Tensor = 0.0,
    mask: Tensor | None = None,
    *,
    foreground: Sequence[int] | None = None,
) -> ReleasedTerms:
    """Binary cross-entropy of all channels, Dice of the foreground, mean excess h, squared error of logits.

    Args:
        logits: (B, K, *S); in the code 3 channels, background and two classes, whose Dice weighs 0.314 and 0.686.
        target: (B, K, *S), one-hot, or regions.
        multiplier: lambda; after each step the code adds 0.01 h to it, and starts at 0 in every epoch.
        mask: (B, 1, *S), true or 1 where a voxel counts; ``None`` counts all.
        foreground: channels of the Dice, by default all but the first; of other numbers than two, of equal weight.
    """
    logits = at_least_float32(logits)
    target = target.to(logits.dtype)
    counted = torch.ones_like(logits[:, :1]) if mask is None else mask.to(logits.dtype)
    number = logits.shape[1] * counted.sum().clamp(min=1.0)
    probability, inside = logits.sigmoid(), list(range(2, logits.ndim))
    bce = (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * counted).sum() / number
    truth, predicted = target * counted, probability * counted
    overlap, volume = (predicted * truth).sum(inside), predicted.sum(inside) + truth.sum(inside)
    error = 1.0 - ((2.0 * overlap + SMOOTH) / (volume + SMOOTH)).mean(0)
    excess = (predicted.sum() - truth.sum()) / number
    mse = (torch.square(logits - target) * counted).sum() / number
    channels = range(1, logits.shape[1]) if foreground is None else foreground
    of_classes = tuple(error[k] for k in channels)
    weights = default_class_weights(len(of_classes))
    dice = torch.stack([w * d for w, d in zip(weights, of_classes, strict=True)]).sum()
    return ReleasedTerms(0.3 * bce + 0.5 * dice + multiplier * excess + 0.2 * mse, bce, of_classes, excess, mse)


def image_contrast(unlabeled: Tensor, labeled: Tensor, temperature: float = 0.07) -> Tensor:
    """Mean over a of -log exp(u_a l_a / tau) / sum_b exp(u_a l_b / tau), the logits of a whole image being a vector.

    Args:
        unlabeled: (B_U, K, *S), logits, without gradient.
        labeled: (B_L, K, *S), logits; receives the gradient.
        temperature: tau.

    Returns:
        Scalar, float32 (float64 for float64 logits); where the batches differ, of as many as the smaller one has.
    """
    pairs = min(len(unlabeled), len(labeled))
    u, v = (F.normalize(at_least_float32(z).flatten(1), dim=1) for z in (unlabeled.detach()[:pairs], labeled))
    return F.cross_entropy(u @ v.T / temperature, torch.arange(pairs, device=v.device))
