"""Cross-entropy and Dice on a random subset of voxels in which every class is about equally frequent.

Source: SKCDF (Zhang et al., CVPR 2025), Eqs. 2, 4 and 16-19. Two departures from the printed equations, both as in the
published experiments: the two losses are summed, not averaged; dropped voxels keep diluting the Dice (``dice_offset``).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_ssl.losses.class_sums import sum_by_class
from nnunet_ssl.losses.precision import at_least_float32


def dice_ce(logits: Tensor, target: Tensor, smooth: float = 1.0, valid: Tensor | None = None) -> Tensor:
    """Mean cross-entropy plus one minus the mean foreground Dice, softmax over classes.

    Source: SKCDF, L_DiceCE of Eqs. 2 and 4, summed. With p the softmax and all sums over the voxels of the whole batch,

        dc_c = (2 sum p_c y_c + smooth) / (sum p_c + sum y_c + smooth + 1e-8),   loss = CE + 1 - mean_{c >= 1} dc_c.

    Args:
        logits: (B, K, *S); receives the gradient.
        target: (B, 1, *S), class indices 0 to K - 1 of any dtype.
        smooth: added to numerator and denominator of the Dice. In a class that no voxel has, dc_c = smooth / (sum p_c +
            smooth): predicting none of it is rewarded.
        valid: (B, 1, *S), true or 1 where a voxel counts: no padding, no ignore label. ``target`` may hold anything
            elsewhere. All sums and N, the number by which the cross-entropy is divided, run over these voxels alone.
            ``None`` counts all. None valid gives 0, still connected.

    Returns:
        Scalar, float32 (float64 for float64 logits).
    """
    return _dice_ce(logits, target, valid, None, smooth)


def weighted_dice(
    logits: Tensor, target: Tensor, class_weight: Tensor, valid: Tensor | None = None, smooth: float = 1.0
) -> Tensor:
    """mean_{c >= 1} W_c (1 - dc_c), with the Dice dc_c of :func:`dice_ce`.

    Source: the code of DHC (Wang & Li, MICCAI 2023), which subtracts W_c dc_c: a constant less, the same gradient.

    Args:
        logits, target, valid, smooth: as in :func:`dice_ce`.
        class_weight: W, (K,), not negative.

    Returns:
        Scalar, float32 (float64 for float64 logits).
    """
    probability = at_least_float32(logits).softmax(1)
    label = _classes(target, valid)
    counted = torch.ones_like(label, dtype=probability.dtype) if valid is None else valid.to(probability.dtype)
    dice = _dice(probability, probability.gather(1, label), label, counted, smooth)
    return (class_weight.detach()[1:] * (1.0 - dice[1:])).mean()


def balanced_dice_ce(
    logits: Tensor,
    target: Tensor,
    keep_mask: Tensor,
    valid: Tensor | None = None,
    smooth: float = 1.0,
    dice_offset: bool = True,
) -> Tensor:
    """:func:`dice_ce` of the kept voxels, with the gradient of the published experiments.

    Source: SKCDF, Eqs. 17 and 19, with the mask applied to logits and labels instead of to the loss. A dropped voxel
    then has logits of zero and the label background: a constant cross-entropy of ln K, left out here, and 1 / K
    predicted volume of each class. With M the mask, N the number of voxels and delta = (N - sum M) / K,

        CE   = (1 / N) sum M ce
        dc_c = (2 sum M p_c y_c + smooth) / (sum M p_c + sum M y_c + delta + smooth + 1e-8).

    A kept voxel weighs 1 / N whatever the number of kept ones, as much as in :func:`dice_ce`. With every voxel kept,
    the two agree; with none kept, the value is 1 - smooth / (N / K + smooth), without a gradient.

    Args:
        logits: (B, K, *S); receives the gradient, exactly zero at dropped voxels.
        target: (B, 1, *S), class indices 0 to K - 1 of any dtype.
        keep_mask: (B, 1, *S), true or 1 where a voxel is kept, see :func:`sample_keep_mask`.
        valid: (B, 1, *S), true or 1 where a voxel counts. The others are no part of the batch: neither kept nor, in N
            and delta, dropped, so that padding and ignored voxels change nothing. ``None`` counts all.
        smooth: as in :func:`dice_ce`.
        dice_offset: false sets delta = 0, which makes the Dice of rare classes much stronger (an ablation).

    Returns:
        Scalar, float32 (float64 for float64 logits).
    """
    return _dice_ce(logits, target, valid, keep_mask, smooth, dice_offset)


def keep_probabilities(voxel_counts: Tensor) -> Tensor:
    """P_c = min_c' N_c' / N_c: with these, every class keeps the same expected number of voxels.

    Source: SKCDF, Eq. 16, with the rarest class in the numerator: the printed N_L / N_C, N_L being all labelled voxels,
    is no probability. A class without voxels takes no part in the minimum and gets 1.

    Args:
        voxel_counts: (K,), voxels of each class in the labelled cases, background included, ignored voxels excluded.

    Returns:
        (K,) float32 in (0, 1]; 1 for the rarest class.
    """
    counts = voxel_counts.double()  # counts beyond 2^24 are no float32 integers
    present = counts > 0
    rarest = torch.where(present, counts, torch.inf).min()
    return torch.where(present, rarest / counts, 1.0).float()


def scheduled_keep_probabilities(keep_probability: Tensor, progress: float) -> Tensor:
    """1 - progress (1 - P): the keep probabilities of unlabelled voxels, exactly 1 at the start and P at the end.

    Source: SKCDF, Eq. 18.

    Args:
        keep_probability: (K,), see :func:`keep_probabilities`.
        progress: fraction of training done, clipped to [0, 1].

    Returns:
        (K,) of the same dtype.
    """
    # lerp is exact at both ends and for P = 1; the printed formula loses the last digits of a small P
    return torch.lerp(torch.ones_like(keep_probability), keep_probability, min(max(progress, 0.0), 1.0))


def sample_keep_mask(
    target: Tensor, keep_probability: Tensor, generator: torch.Generator | None = None, valid: Tensor | None = None
) -> Tensor:
    """Keep each voxel with the probability of its class, independently: M ~ Bernoulli(P_target).

    Source: SKCDF, Eq. 16 (labelled voxels, P) and Eq. 18 (unlabelled voxels, the pseudo-label's class and
    :func:`scheduled_keep_probabilities`). Probability 1 keeps for certain.

    Args:
        target: (B, 1, *S), labels or pseudo-labels, class indices 0 to K - 1 of any dtype.
        keep_probability: (K,) float32 on the device of ``target``.
        generator: of that device; ``None`` draws from the global one.
        valid: (B, 1, *S), true or 1 where a voxel counts; the others are dropped; ``target`` may hold anything there.

    Returns:
        (B, 1, *S) bool, the ``keep_mask`` of :func:`balanced_dice_ce`.
    """
    probability = keep_probability.detach()[_classes(target, valid)]
    if valid is not None:
        probability = probability * valid
    return torch.bernoulli(probability, generator=generator).bool()


def _classes(target: Tensor, valid: Tensor | None) -> Tensor:
    """Class indices, int64; background where the target does not count, since padding and ignore label are no class."""
    return target.long() if valid is None else torch.where(valid.bool(), target, 0).long()


def _dice_ce(
    logits: Tensor, target: Tensor, valid: Tensor | None, keep: Tensor | None, smooth: float, dice_offset: bool = True
) -> Tensor:
    """The loss of the kept voxels among the valid ones, as described in :func:`balanced_dice_ce`."""
    expected = (logits.shape[0], 1, *logits.shape[2:])
    for name, tensor in (("target", target), ("valid", valid), ("keep_mask", keep)):
        if tensor is not None and tensor.shape != expected:
            raise ValueError(f"{name} must have the shape {expected}, got {tuple(tensor.shape)}")
    logits = at_least_float32(logits)
    classes = logits.shape[1]
    label = _classes(target, valid)
    counted = torch.ones_like(label, dtype=logits.dtype) if valid is None else valid.to(logits.dtype)
    kept = counted if keep is None else counted * keep

    error = F.cross_entropy(logits, label[:, 0], reduction="none").unsqueeze(1)
    number = counted.sum()
    cross_entropy = (error * kept).sum() / number.clamp(min=1.0)

    dropped = (number - kept.sum()) / classes if dice_offset else 0.0
    own = (-error).exp()  # the softmax of the voxel's own class
    return cross_entropy + 1.0 - _dice(logits.softmax(1), own, label, kept, smooth, dropped)[1:].mean()


def _dice(
    probability: Tensor, own: Tensor, label: Tensor, kept: Tensor, smooth: float, dropped: Tensor | float = 0.0
) -> Tensor:
    """dc_c (K,) of :func:`dice_ce`; ``dropped`` dilutes it, ``own`` is the probability of each voxel's label."""
    predicted = (probability * kept).sum([0, *range(2, probability.ndim)])
    overlap = sum_by_class(own * kept, label, probability.shape[1])
    present = sum_by_class(kept, label, probability.shape[1])
    return (2.0 * overlap + smooth) / (predicted + present + dropped + smooth + 1e-8)
