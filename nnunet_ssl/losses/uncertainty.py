"""Consistency with a teacher where several of its noisy passes are certain.

Source: UA-MT (Yu et al., MICCAI 2019), its code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nnunet_ssl.losses.precision import at_least_float32

INSIDE_LOGARITHM = 1e-6  # released code


@torch.no_grad()
def predictive_entropy(mean_probability: Tensor, regions: bool = False) -> Tensor:
    """u = -sum_c p ln(p + 1e-6) of the mean of several passes.

    Args:
        mean_probability: (B, K, *S) in [0, 1].
        regions: the mean over channels of binary entropies.

    Returns:
        (B, 1, *S) in nats, float32 (float64 for float64); at most ln K, of regions ln 2.
    """
    p = at_least_float32(mean_probability)
    of_channel = -p * (p + INSIDE_LOGARITHM).log()
    if regions:
        return (of_channel - (1 - p) * (1 - p + INSIDE_LOGARITHM).log()).mean(1, keepdim=True)
    return of_channel.sum(1, keepdim=True)


def certainty_threshold(ramp: float, classes: int, start: float = 0.75) -> float:
    """(start + (1 - start) ramp) ln K: entropies below it are certain.

    The released code has ln 2 for any number of classes, which of four lets only voxels above 0.81 pass.

    Args:
        ramp: 0 at the start of training and 1 at its end, see ``sigmoid_rampup``.
        classes: K; 2 for regions, and for the released form.
        start: 0.75 in the released code.
    """
    return (start + (1 - start) * ramp) * math.log(classes)


def certain_mse(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor,
    *,
    regions: bool = False,
    divisor: float | None = None,
) -> Tensor:
    """Sum over certain voxels and channels of the squared difference of the probabilities, over K times their number.

    Args:
        student_logits: (B, K, *S); receives the gradient, exactly zero where not certain.
        teacher_logits: (B, K, *S); detached.
        mask: (B, 1, *S) bool, certain and no padding.
        regions: channels are overlapping regions: sigmoids.
        divisor: in place of K; the released code has 2.

    Returns:
        Scalar, float32 (float64 for float64 logits); no certain voxel gives 0, still connected.
    """
    student, teacher = (at_least_float32(z) for z in (student_logits, teacher_logits.detach()))
    difference = student.sigmoid() - teacher.sigmoid() if regions else student.softmax(1) - teacher.softmax(1)
    counted = mask.to(difference.dtype)
    total = (torch.square(difference).sum(1, keepdim=True) * counted).sum()
    return total / ((divisor or student.shape[1]) * counted.sum() + 1e-16)
