"""The windows into which a training patch is cut, sized to fit a stage of the encoder.

Source: PLGCL (Basak & Yin, CVPR 2023) cuts images into patches without naming a size; the rule is recommended.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nnunet_ssl.errors import complain

CELLS = 4  # positions a window must keep at the embedded stage: an instance norm cannot normalise a single one


@dataclass(frozen=True)
class PatchGrid:
    """A regular grid of windows, the same for every image and class.

    Attributes:
        stage: encoder stage whose features are pooled, counted from 0.
        size: voxels of a window per axis, a multiple of the stage's stride.
        starts: first voxel of the windows, per axis.
    """

    stage: int
    size: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]

    @property
    def number(self) -> int:
        """Windows per image."""
        return math.prod(map(len, self.starts))

    @property
    def voxels(self) -> int:
        """Voxels of a window."""
        return math.prod(self.size)


def plan_grid(
    crop: Sequence[int],
    strides: Sequence[Any],
    batch: int,
    neighbours: int,
    size: Sequence[int] | None = None,
    embed_stage: str = "auto",
) -> PatchGrid:
    """About a quarter of the crop per axis, at the deepest stage where that leaves 4 positions of features.

    With T the cumulative stride of a stage, a window has T max(1, round(L / 4 T)) voxels on an axis of length L; the
    windows overlap by half where they would be fewer than 4 (neighbours + 1) in the batch.

    Args:
        crop: L, the training patch of the plans.
        strides: of each encoder stage, as in the plans.
        batch: images per step.
        neighbours: n, positives of an anchor.
        size: explicit voxels of a window; ``None`` follows the rule.
        embed_stage: "auto", or "bottleneck" for the deepest stage, with two positions per axis at least.

    Raises:
        SemiSupervisedError: no stage fits such windows.
    """
    total = [1] * len(crop)
    reach: list[list[int]] = []  # T per stage
    for stride in strides:
        steps = [stride] * len(crop) if isinstance(stride, int) else stride
        total = [t * int(s) for t, s in zip(total, steps, strict=True)]
        reach.append(total)
    stages = [len(reach) - 1] if embed_stage == "bottleneck" else list(reversed(range(len(reach))))
    for stage in stages:
        fitting = _size(crop, reach[stage], size, 2 if embed_stage == "bottleneck" else 1)
        if fitting is not None and math.prod(p // t for p, t in zip(fitting, reach[stage], strict=True)) >= CELLS:
            return PatchGrid(stage, fitting, _starts(crop, fitting, batch, neighbours))
    wanted = f"Windows of {list(size)} voxels" if size is not None else "No windows"
    verb = "do not fit" if size is not None else "fit"
    raise complain(
        f"{wanted} {verb} a training patch of {list(crop)} voxels and an encoder with the total strides {reach} (they "
        f"must lie within the patch, be a multiple of a stage's stride and keep {CELLS} positions of its features).",
        remedy='Change the hyper-parameters patch_size or embed_stage ("auto"), or the patch size of the plans.',
    )


def _size(crop: Sequence[int], reach: Sequence[int], size: Sequence[int] | None, cells: int) -> tuple[int, ...] | None:
    if size is None:
        size = [t * max(cells, math.floor(length / (4 * t) + 0.5)) for length, t in zip(crop, reach, strict=True)]
    if len(size) != len(crop):
        return None
    fits = all(
        type(p) is int and cells * t <= p <= length and p % t == 0
        for p, length, t in zip(size, crop, reach, strict=True)
    )
    return tuple(size) if fits else None


def _starts(crop: Sequence[int], size: Sequence[int], batch: int, neighbours: int) -> tuple[tuple[int, ...], ...]:
    """Side by side, or overlapping by half; a last window flush with the border where a rest remains."""
    steps = list(size)
    if batch * math.prod(1 + (c - p) // s for c, p, s in zip(crop, size, steps, strict=True)) < 4 * (neighbours + 1):
        steps = [max(1, p // 2) for p in size]
    regular = [range(0, c - p + 1, s) for c, p, s in zip(crop, size, steps, strict=True)]
    return tuple(tuple(sorted({*r, c - p})) for r, c, p in zip(regular, crop, size, strict=True))
