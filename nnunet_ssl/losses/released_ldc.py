"""The constrained loss as the authors' code computes it, for comparison; no trainer uses it.

Source: the code published with Zheng et al. (arXiv:2409.07793). It acts on labelled images alone. Its one multiplier
belongs to the mean over all classes, which a softmax fixes; its squared error acts on logits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_ssl.losses.lagrangian import SMOOTH
from nnunet_ssl.losses.precision import at_least_float32

FIRST = 0.9989 * 0.1 * math.pi  # weight of the first foreground class


class ReleasedTerms(NamedTuple):
    """Scalars: the loss 0.3 bce + 0.5 dice + lambda h + 0.2 mse, and its parts."""

    loss: Tensor
    bce: Tensor
    dice: tuple[Tensor, Tensor]
    excess: Tensor
    mse: Tensor


def released_ldc(logits: Tensor, target: Tensor, multiplier: float | Tensor = 0.0) -> ReleasedTerms:
    """Binary cross-entropy of all channels, Dice of two foreground classes, mean excess h, squared error of logits.

    Args:
        logits: (B, 3, *S), background and two classes.
        target: (B, 3, *S), one-hot.
        multiplier: lambda; after each step the code adds 0.01 h to it, and starts at 0 in every epoch.
    """
    logits = at_least_float32(logits)
    target = target.to(logits.dtype)
    probability, inside = logits.sigmoid(), list(range(2, logits.ndim))
    bce = F.binary_cross_entropy_with_logits(logits, target)
    overlap, volume = (probability * target).sum(inside), probability.sum(inside) + target.sum(inside)
    error = 1.0 - ((2.0 * overlap + SMOOTH) / (volume + SMOOTH)).mean(0)
    excess = probability.mean() - target.mean()
    mse = torch.square(logits - target).mean()
    dice = FIRST * error[1] + (1.0 - FIRST) * error[2]
    loss = 0.3 * bce + 0.5 * dice + multiplier * excess + 0.2 * mse
    return ReleasedTerms(loss, bce, (error[1], error[2]), excess, mse)
