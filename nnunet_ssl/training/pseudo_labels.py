"""What is worth knowing about pseudo-labels during training. Read only: nothing here enters a loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor

CONFIDENT = 0.95  # USB's threshold for pseudo-labels (FixMatch, NeurIPS 2020, Table 2)


@torch.no_grad()
def hard_labels(logits: Tensor) -> Tensor:
    """The most probable class (B, 1, *S), int64, of logits (B, K, *S)."""
    return logits.max(1, keepdim=True).indices  # on a CPU ten times faster than argmax over this axis


@torch.no_grad()
def class_masks(logits: Tensor, has_regions: bool) -> tuple[Tensor, Tensor]:
    """(predicted foreground channels (B, F, *S) bool, confidence of the decision (B, 1, *S)) of logits (B, K, *S)."""
    if has_regions:
        probability = logits.float().sigmoid()
        decided = probability > 0.5
        return decided, torch.maximum(probability, 1 - probability).amin(1, keepdim=True)
    confidence, label = logits.float().softmax(1).max(1, keepdim=True)
    classes = torch.arange(1, logits.shape[1], device=logits.device).view(1, -1, *[1] * (logits.ndim - 2))
    return label == classes, confidence


@torch.no_grad()
def describe(student: Tensor, teacher: Tensor, valid: Tensor, has_regions: bool) -> dict[str, Tensor]:
    """Coverage, agreement and foreground fraction over the valid voxels.

    Args:
        student, teacher: logits (B, K, *S); the pseudo-label is the teacher's decision.
        valid: (B, 1, *S) bool.

    Returns:
        scalars ``coverage`` (share decided with at least 0.95 confidence), ``agreement`` (share on which both decide
        alike) and ``foreground`` (share decided as any foreground class).
    """
    decided, confidence = class_masks(teacher, has_regions)
    other, _ = class_masks(student, has_regions)
    count = valid.sum().clamp(min=1)
    return {
        "coverage": ((confidence >= CONFIDENT) & valid).sum() / count,
        "agreement": ((decided == other).all(1, keepdim=True) & valid).sum() / count,
        "foreground": (decided.any(1, keepdim=True) & valid).sum() / count,
    }


@torch.no_grad()
def annotated_foreground(target: Tensor, labels: LabelManager) -> tuple[Tensor, Tensor]:
    """(foreground, annotated), both (B, 1, *S) bool, of a target as nnU-Net's loader gives it.

    Args:
        target: (B, 1, *S) label map, or (B, R, *S) regions with the ignore label, where there is one, as last channel.
        labels: nnU-Net's label manager of the dataset.
    """
    if not labels.has_ignore_label:
        foreground = (target > 0).any(1, keepdim=True)
        return foreground, torch.ones_like(foreground)
    if labels.has_regions:
        return (target[:, :-1] > 0).any(1, keepdim=True), target[:, -1:] == 0
    annotated = target != labels.ignore_label
    return (target > 0) & annotated, annotated


@torch.no_grad()
def mean_dice(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """(mean Dice of two sets of masks (B, F, *S) bool over the classes that either shows, number of these classes)."""
    everywhere = [0, *range(2, first.ndim)]
    dice = 2.0 * (first & second).sum(everywhere) / (first.sum(everywhere) + second.sum(everywhere))  # 0 / 0: NaN
    return dice.nanmean().nan_to_num(), (~dice.isnan()).sum()


@torch.no_grad()
def true_dice(
    teacher: Tensor, label: Tensor, known: Tensor, classes: Sequence[Sequence[int]], has_regions: bool
) -> tuple[Tensor, Tensor]:
    """(mean Dice of the pseudo-labels over the classes that occur, number of these classes).

    Args:
        teacher: logits (B, K, *S).
        label: (B, 1, *S) withheld label map.
        known: (B, 1, *S) bool, true where a withheld label exists and the voxel is not padding.
        classes: the label values of each foreground class or region, in channel order.
    """
    decided, _ = class_masks(teacher, has_regions)
    # comparing with Python numbers, since a tensor of them would have to travel to the device
    truth = torch.cat([torch.stack([label == value for value in values]).any(0) for values in classes], 1)
    return mean_dice(truth & known, decided & known)
