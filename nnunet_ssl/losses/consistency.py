"""Consistency between two predictions of the same voxels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def softmax_mse(student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over voxels of the mean over classes of the squared difference of the two softmaxes.

    Source: Tarvainen & Valpola, "Mean teachers" (NeurIPS 2017), consistency cost; 2/K at most, for opposite one-hots.

    Args:
        student_logits: (B, K, *S); receives the gradient.
        teacher_logits: (B, K, *S); detached.
        mask: (B, 1, *S), true or 1 where a voxel counts; ``None`` counts all. All zero gives 0, still connected.

    Returns:
        Scalar, float32.
    """
    return _masked_mse(student_logits.float().softmax(1), teacher_logits.detach().float().softmax(1), mask)


def sigmoid_mse(student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """As :func:`softmax_mse` with a sigmoid per channel, for region-based training (overlapping classes)."""
    return _masked_mse(student_logits.float().sigmoid(), teacher_logits.detach().float().sigmoid(), mask)


def softmax_cross_entropy(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None, hard: bool = False
) -> Tensor:
    """Mean over voxels of -sum_k p_teacher log p_student; for equal predictions it is their entropy.

    Source: PLGCL (Basak & Yin, CVPR 2023), Eq. 6.

    Args:
        student_logits: (B, K, *S); receives the gradient.
        teacher_logits: (B, K, *S); detached.
        mask: (B, 1, *S), true or 1 where a voxel counts; ``None`` counts all. All zero gives 0, still connected.
        hard: the teacher's most probable class in place of its probabilities.

    Returns:
        Scalar, float32.
    """
    log_student, teacher = student_logits.float().log_softmax(1), teacher_logits.detach().float()
    if hard:
        return _masked_mean(-log_student.gather(1, teacher.max(1, keepdim=True).indices), mask)
    return _masked_mean(-(teacher.softmax(1) * log_student).sum(1, keepdim=True), mask)


def sigmoid_cross_entropy(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None, hard: bool = False
) -> Tensor:
    """As :func:`softmax_cross_entropy` with a binary one per channel and their mean, for region-based training."""
    student, teacher = student_logits.float(), teacher_logits.detach().float()
    target = (teacher >= 0).float() if hard else teacher.sigmoid()
    error = F.binary_cross_entropy_with_logits(student, target, reduction="none")
    return _masked_mean(error.mean(1, keepdim=True), mask)


def _masked_mse(student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
    return _masked_mean(torch.square(student - teacher).mean(1, keepdim=True), mask)


def _masked_mean(error: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return error.mean()
    weight = mask.to(error.dtype)
    return (error * weight).sum() / weight.sum().clamp(min=1.0)
