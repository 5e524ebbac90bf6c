"""From a signed distance map back to a mask, which a segmentation shall equal.

Source: DTC (Luo et al., AAAI 2021), its code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_ssl.losses.consistency import masked_mean
from nnunet_ssl.losses.precision import at_least_float32


def distance_to_mask(distance: Tensor, steepness: float = 1500.0) -> Tensor:
    """sigmoid(-steepness distance): nearly 1 inside, 0.5 on the boundary, nearly 0 outside.

    The slope at 0 is -steepness / 4, and beyond a distance of about 0.005 there is none: only voxels at the boundary
    pull on the distance, the others on what it is compared with.

    Args:
        distance: any shape, in [-1, 1], negative inside.
        steepness: 1500, released code.

    Returns:
        The same shape in [0, 1], float32 (float64 for float64).
    """
    return (-steepness * at_least_float32(distance)).sigmoid()


def dual_task_consistency(
    distance: Tensor, probability: Tensor, mask: Tensor | None = None, steepness: float = 1500.0, detach: str = "none"
) -> Tensor:
    """Mean of (distance_to_mask(d) - p)^2 over voxels and classes.

    Args:
        distance: (B, F, *S) signed distances, negative inside.
        probability: (B, F, *S) of the same foreground classes or regions.
        mask: (B, F, *S) or (B, 1, *S), true or 1 where a class of a voxel counts; ``None`` counts all. All zero
            gives 0, still connected.
        steepness: see :func:`distance_to_mask`.
        detach: side without gradient: "none", as in the released code, "segmentation" or "distance".

    Returns:
        Scalar, float32 (float64 for float64).
    """
    if detach == "distance":
        distance = distance.detach()
    elif detach == "segmentation":
        probability = probability.detach()
    error = torch.square(distance_to_mask(distance, steepness) - at_least_float32(probability))
    return masked_mean(error, None if mask is None else mask.expand_as(error))
