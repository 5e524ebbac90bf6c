"""Signed distance maps of binary masks.

Source: the targets of the boundary-aware contrast in Zheng et al. (arXiv:2409.07793), Eq. 4, in the normalised form in
which such maps are usually regressed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from scipy.ndimage import binary_erosion, distance_transform_edt
from torch import Tensor

from nnunet_ssl.losses.precision import at_least_float32

Mask = TypeVar("Mask", np.ndarray, Tensor)


def signed_distance_map(mask: Mask, spacing: Sequence[float] | None = None) -> Mask:
    """Distance to the object, negative inside, each side divided by its maximum: in [-1, 1].

    Outside d(i, G) / max d(., G), inside -d(i, not G) / max d(., not G), 0 at voxels of G with a face in common with
    a voxel outside G. Beyond its edges the map is taken to go on as it is, since patches cut objects. An empty mask is
    +1 everywhere, a full one -1.

    Args:
        mask: any number of axes, nonzero inside the object; one binary mask, without batch and channel.
        spacing: extent of a voxel along each axis, in any unit; ``None``: 1.

    Returns:
        float32 of the shape and kind (array or tensor, on the same device) of the mask. Evaluated on the CPU.

    Raises:
        ValueError: another number of spacings than axes.
    """
    if isinstance(mask, Tensor):
        found = signed_distance_map(mask.detach().cpu().numpy(), spacing)
        return torch.from_numpy(found).to(mask.device)
    inside = np.asarray(mask) != 0
    if spacing is not None and len(spacing) != inside.ndim:
        raise ValueError(f"{len(spacing)} spacings for a mask of {inside.ndim} axes")
    if not inside.any():
        return np.ones(inside.shape, np.float32)
    if inside.all():
        return np.full(inside.shape, -1.0, np.float32)
    outer = distance_transform_edt(~inside, sampling=spacing)
    result = (outer / outer.max()).astype(np.float32)
    box = _bounding_box(inside)  # with a voxel around the object, it holds the voxel outside next to each inner one
    part = inside[box]
    inner = distance_transform_edt(part, sampling=spacing)
    inner /= inner.max()
    inner[part & ~binary_erosion(part, border_value=1)] = 0.0
    result[box][part] = -inner[part]
    return result


def signed_distance_mse(predicted: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """L_sdm: mean over voxels and classes of the squared difference of two maps.

    Args:
        predicted: (B, F, *S); receives the gradient.
        target: (B, F, *S).
        mask: (B, 1, *S), true or 1 where a voxel counts; ``None`` counts all. All zero gives 0, still connected.

    Returns:
        Scalar, float32 (float64 for float64 maps).
    """
    error = torch.square(at_least_float32(predicted) - target).mean(1, keepdim=True)
    return error.mean() if mask is None else (error * mask).sum() / mask.sum().clamp(min=1)


def _bounding_box(inside: np.ndarray) -> tuple[slice, ...]:
    """Slices around the object with one voxel to spare, where there is one."""
    box = []
    for axis in range(inside.ndim):
        found = np.flatnonzero(inside.any(tuple(a for a in range(inside.ndim) if a != axis)))
        box.append(slice(max(0, int(found[0]) - 1), int(found[-1]) + 2))
    return tuple(box)
