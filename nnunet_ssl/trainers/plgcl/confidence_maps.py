"""How certainly each voxel belongs to each class: by a network, or by the ground truth.

Source: C of PLGCL (Basak & Yin, CVPR 2023), Sec. 3.1. B images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor


def class_probabilities(logits: Tensor, has_regions: bool = False, out: Tensor | None = None) -> Tensor:
    """C (B, K, *S) in float32: softmax; for regions sigmoid, behind a background channel 1 - max.

    Args:
        logits: (B, K, *S), with regions (B, K - 1, *S).
        has_regions: their kind.
        out: (B, K, *S) float32 to write to; ``None``: new memory.
    """
    if out is None:
        out = _empty(logits, logits.shape[1] + has_regions)
    if not has_regions:
        return torch.softmax(logits, 1, dtype=torch.float32, out=out)
    out[:, 1:].copy_(logits).sigmoid_()
    return with_background(out)


def with_background(out: Tensor) -> Tensor:
    """Write 1 - max over the regions (B, R, *S) in [0, 1] before them: (B, 1 + R, *S), in place."""
    torch.sub(1, out[:, 1:].amax(1), out=out[:, 0])
    return out


def label_probabilities(
    target: Tensor,
    classes: int,
    has_regions: bool = False,
    ignore_label: int | None = None,
    guess: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """C (B, K, *S) of ground truth: one-hot, and the guess where it is ignored.

    Args:
        target: (B, 1, *S) labels; with regions (B, R, *S), with an ignore label (B, R + 1, *S), as nnU-Net gives it.
        classes: K, with regions counting background.
        has_regions: the target's kind.
        ignore_label: nnU-Net's, or ``None``.
        guess: (B, K, *S) probabilities, needed with an ignore label alone.
        out: (B, K, *S) float32 to write to; ``None``: new memory.
    """
    if out is None:
        out = _empty(target, classes)
    if has_regions:
        out[:, 1:].copy_(target[:, : classes - 1] > 0)
        with_background(out)
        ignored = None if ignore_label is None else target[:, -1:] > 0
    else:
        for k in range(classes):  # one class at a time: all of them may not fit into memory twice
            out[:, k].copy_(target[:, 0] == k)
        ignored = None if ignore_label is None else target == ignore_label
    if ignored is not None:
        assert guess is not None
        torch.where(ignored, guess, out, out=out)
    return out


def joint_probabilities(
    target: Tensor, logits: Tensor, has_regions: bool, ignore_label: int | None, guess: Tensor | None
) -> Tensor:
    """C (B_L + B_U, K, *S) of labelled and of unlabelled images, written once: its copies would be the largest tensors.

    Args:
        target, ignore_label, guess: see :func:`label_probabilities`, of the labelled images.
        logits: see :func:`class_probabilities`, of the unlabelled ones.
        has_regions: of both.
    """
    classes, labeled = logits.shape[1] + has_regions, len(target)
    out = logits.new_empty(labeled + len(logits), classes, *logits.shape[2:], dtype=torch.float32)
    label_probabilities(target, classes, has_regions, ignore_label, guess, out[:labeled])
    class_probabilities(logits, has_regions, out[labeled:])
    return out


def _empty(like: Tensor, classes: int) -> Tensor:
    return torch.empty(len(like), classes, *like.shape[2:], device=like.device)


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
