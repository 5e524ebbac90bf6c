"""The outputs of several scales agree with their mean, less where they are unsure.

Source: URPC (Luo et al., MICCAI 2021; Medical Image Analysis 2022), its code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_ssl.losses.precision import at_least_float32
from nnunet_ssl.losses.regions import as_two_classes, for_each_region


def at_full_resolution(list_of_logits: Sequence[Tensor]) -> list[Tensor]:
    """Logits (B, K, *S_s) interpolated linearly to the size of the first ones, float32 (float64 as it is)."""
    size = list_of_logits[0].shape[2:]
    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    scales = [at_least_float32(z) for z in list_of_logits]
    return [z if z.shape[2:] == size else F.interpolate(z, size, mode=linear, align_corners=False) for z in scales]


def pyramid_consistency(
    list_of_logits: Sequence[Tensor],
    mask: Tensor | None = None,
    detach_mean: bool = False,
    *,
    regions: bool = False,
) -> Tensor:
    """Mean over scales of the distance to their mean prediction, rectified by their divergence from it.

    With p_s the softmax of scale s at full resolution, p their mean, u_s = sum_c p (ln p - ln p_s) and w_s = exp(-u_s),

        L_s = mean_{voxels, classes}[(p - p_s)^2 w_s] / (mean_voxels w_s + 1e-8) + mean_voxels u_s.

    Args:
        list_of_logits: (B, K, *S_s); the first has the full resolution S, the others are interpolated linearly.
        mask: (B, 1, *S), true or 1 where a voxel counts; ``None`` counts all. All zero gives 0, still connected.
        detach_mean: no gradient through p. The authors' code has it.
        regions: channels are overlapping regions, each a problem of two classes.

    Returns:
        Scalar, float32 (float64 for float64 logits); 0 for a single scale.
    """
    scales = at_full_resolution(list_of_logits)
    if regions:
        number = scales[0].shape[1]
        scales = [as_two_classes(z) for z in scales]
        mask = None if mask is None else for_each_region(mask, number)
    logs = [z.log_softmax(1) for z in scales]
    log_mean = torch.stack(logs).logsumexp(0) - math.log(len(logs))
    if detach_mean:
        log_mean = log_mean.detach()
    mean = log_mean.exp()
    counted = torch.ones_like(mean[:, :1]) if mask is None else mask.to(mean.dtype)
    number_counted = counted.sum().clamp(min=1.0)

    def of_scale(log_p: Tensor) -> Tensor:
        divergence = (mean * (log_mean - log_p)).sum(1, keepdim=True)
        weight = (-divergence).exp()
        distance = torch.square(mean - log_p.exp()).mean(1, keepdim=True) * weight
        averages = [(values * counted).sum() / number_counted for values in (distance, weight, divergence)]
        return averages[0] / (averages[1] + 1e-8) + averages[2]

    return torch.stack([of_scale(log_p) for log_p in logs]).mean()
