"""Consistency between two predictions of the same voxels."""

from __future__ import annotations

import torch
from torch import Tensor


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


def _masked_mse(student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
    error = torch.square(student - teacher).mean(1, keepdim=True)
    if mask is None:
        return error.mean()
    weight = mask.to(error.dtype)
    return (error * weight).sum() / weight.sum().clamp(min=1.0)
