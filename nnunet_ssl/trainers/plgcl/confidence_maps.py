"""How certainly each voxel belongs to each class: by a network, or by the ground truth.

Source: C of PLGCL (Basak & Yin, CVPR 2023), Sec. 3.1. B images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor


def class_probabilities(logits: Tensor, has_regions: bool = False) -> Tensor:
    """C (B, K, *S) in float32: softmax; for regions sigmoid, behind a background channel 1 - max."""
    if not has_regions:
        return logits.float().softmax(1)
    return with_background(logits.float().sigmoid())


def with_background(regions: Tensor) -> Tensor:
    """(B, R, *S) in [0, 1] -> (B, 1 + R, *S), background first."""
    return torch.cat([1 - regions.amax(1, keepdim=True), regions], 1)


def label_probabilities(
    target: Tensor,
    classes: int,
    has_regions: bool = False,
    ignore_label: int | None = None,
    guess: Tensor | None = None,
) -> Tensor:
    """C (B, K, *S) of ground truth: one-hot, and the guess where it is ignored.

    Args:
        target: (B, 1, *S) labels; with regions (B, R, *S), with an ignore label (B, R + 1, *S), as nnU-Net gives it.
        classes: K, with regions counting background.
        has_regions: the target's kind.
        ignore_label: nnU-Net's, or ``None``.
        guess: (B, K, *S) probabilities, needed with an ignore label alone.
    """
    if has_regions:
        known = with_background((target[:, : classes - 1] > 0).float())
        ignored = None if ignore_label is None else target[:, -1:] > 0
    else:
        index = torch.arange(classes, device=target.device).view(1, -1, *[1] * (target.ndim - 2))
        known = (target == index).float()
        ignored = None if ignore_label is None else target == ignore_label
    if ignored is None:
        return known
    assert guess is not None
    return torch.where(ignored, guess, known)


def contrasted_pairs(regions: Sequence[Sequence[int]]) -> Tensor:
    """(1 + R, 1 + R) bool, symmetric: regions without a common label may be negatives of each other, background of all.

    The diagonal is true.
    """
    sets = [set(), *map(set, regions)]
    return torch.tensor([[i == j or not (a & b) for j, b in enumerate(sets)] for i, a in enumerate(sets)])


def class_pairs(labels: LabelManager) -> Tensor:
    """(K, K) bool: which classes may be negatives of each other; see :func:`contrasted_pairs` for regions."""
    if not labels.has_regions:
        return torch.ones(labels.num_segmentation_heads, labels.num_segmentation_heads, dtype=torch.bool)
    return contrasted_pairs([r if isinstance(r, (tuple, list)) else (r,) for r in labels.foreground_regions])
