"""Normalised intensities mapped to [0, 1] and back, for what is defined there alone.

Source: PLGCL (Basak & Yin, CVPR 2023), whose entropy of intensities (Eq. 3) presumes such a range. Its data had it,
after nnU-Net's normalisations it is lost. The mapping is recommended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

LOW, HIGH = 0.005, 0.995  # percentiles, as nnU-Net clips CT
SAMPLE = 100_000  # voxels from which they are estimated
SMALLEST = 1e-6  # a range below this counts as none

Range = tuple[float, float] | None


def fixed_ranges(schemes: Sequence[str], properties: Mapping[str, Any]) -> list[Range]:
    """Per channel the ends of the range that the normalisation fixes, or ``None`` where each image has its own.

    Args:
        schemes: nnU-Net's normalization_schemes of the configuration.
        properties: foreground_intensity_properties_per_channel of the plans, read for CT alone.
    """
    ranges: list[Range] = []
    for channel, scheme in enumerate(schemes):
        if scheme == "CTNormalization":
            p = properties[str(channel)]
            std = max(p["std"], 1e-8)  # as nnU-Net
            low, high = ((p[key] - p["mean"]) / std for key in ("percentile_00_5", "percentile_99_5"))
            ranges.append((low, high))
        else:
            ranges.append((0.0, 1.0) if scheme in ("RescaleTo01Normalization", "RGBTo01Normalization") else None)
    return ranges


@torch.no_grad()
def intensity_range(images: Tensor, fixed: Sequence[Range]) -> tuple[Tensor, Tensor]:
    """Ends a, b of the range of each image and channel, (B, C) each.

    Args:
        images: (B, C, *S), normalised.
        fixed: see :func:`fixed_ranges`; further channels count as ``None``: the 0.5 and 99.5 percentiles of the image.
    """
    voxels = images.flatten(2).float()
    sample = voxels[..., :: -(-voxels.shape[2] // SAMPLE)]
    low, high = torch.quantile(sample, LOW, dim=2), torch.quantile(sample, HIGH, dim=2)
    for channel, ends in enumerate(fixed):
        if ends is not None:
            low[:, channel], high[:, channel] = ends
    return low, high


def to_unit(images: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """clip((x - a) / (b - a), 0, 1), float32; 0 where b - a vanishes. images (B, C, *S), low and high (B, C)."""
    low, span = _spread(low, images), _spread(high - low, images)
    unit = ((images.float() - low) / span.clamp(min=SMALLEST)).clamp(0, 1)
    return torch.where(span < SMALLEST, 0.0, unit)


def from_unit(unit: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """a + (b - a) x, the way back for what lies within the range."""
    return torch.lerp(_spread(low, unit), _spread(high, unit), unit)


def _spread(values: Tensor, like: Tensor) -> Tensor:
    return values.view(*values.shape, *[1] * (like.ndim - 2))
