"""Boxes that are cut out of one patch and pasted into another.

Source: CutMix (Yun et al., ICCV 2019) as UniMatch (Yang et al., CVPR 2023) draws it for segmentation, in 2D; in 3D and
on anisotropic patches recommended. BCP (Bai et al., CVPR 2023) has boxes of one size, AD-MT (Zhao et al., ECCV 2024)
boxes that the border cuts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SHORTEST_CUT = 8  # voxels; a box spans shorter axes whole, since a few slices are no part of an organ
ROUNDING = 1e-4  # of a voxel: 96 voxels times two thirds are 64, also in float32


@dataclass(frozen=True)
class CutMix:
    """Patches with a box from the next one of the batch.

    Attributes:
        probability: of a patch to get a box; 0: nothing is mixed.
        share: of the patch in the smallest and in the largest box.
        aspect: see :func:`draw_boxes`.
        generator: belongs to the checkpoint.
    """

    probability: float
    share: tuple[float, float]
    aspect: float
    generator: torch.Generator

    def draw(self, patches: Tensor) -> Tensor | None:
        """A box for each of the patches (B, C, *P), (B, 1, *P) bool on their device; ``None`` where none is mixed."""
        if self.probability == 0 or len(patches) < 2:
            return None
        size = patches.shape[2:]
        return draw_boxes(len(patches), size, self.share, self.aspect, self.probability, self.generator, patches.device)

    @staticmethod
    def paste(maps: Tensor, box: Tensor | None) -> Tensor:
        """Maps (B, C, *P) that hold the next sample in the box, and the first one in that of the last."""
        return maps if box is None else mix(maps.roll(-1, 0), maps, box)


def draw_boxes(
    batch: int,
    patch_size: Sequence[int],
    fraction: tuple[float, float],
    aspect: float,
    probability: float,
    generator: torch.Generator,
    device: torch.device | str,
) -> Tensor:
    """One box per sample, all of it inside the patch, at a uniform position.

    Its share of the patch is uniform in ``fraction``. In 2D the ratio of its relative edges is uniform in
    [1 / aspect, aspect]; in 3D the logarithm of each is uniform within half of ln aspect, then rescaled to the share.
    Edges end at the patch, and the others make up for it. Axes shorter than 8 voxels are spanned whole.

    Args:
        batch: B.
        patch_size: P, 2 or 3 axes.
        fraction: smallest and largest share of the patch, in (0, 1]; the same twice for boxes of one size.
        aspect: at least 1; 1 for boxes with the proportions of the patch, 1 / 0.3 in UniMatch.
        probability: of a sample to get a box at all.
        generator: all random numbers come from it; it belongs to the checkpoint.
        device: of the result; nothing waits for it.

    Returns:
        (B, 1, *P) bool, true inside.

    Raises:
        ValueError: a share, aspect or probability out of range.
    """
    low, high = fraction
    if not 0 < low <= high <= 1 or not 0 <= probability <= 1 or aspect < 1:
        raise ValueError(
            f"fraction must lie in (0, 1] in rising order, probability in [0, 1] and aspect must be 1 or more, got "
            f"{fraction}, {probability} and {aspect}"
        )
    size = torch.tensor(patch_size, dtype=torch.float32, device=generator.device)
    cut = axes_cut(patch_size)
    share = low + (high - low) * _uniform(generator, batch, 1)
    relative = torch.ones(batch, len(patch_size), device=generator.device)
    relative[:, cut] = _edges(share, _proportions(generator, batch, len(cut), aspect))
    edges = (relative * size + ROUNDING).floor().clamp(min=1)
    start = (_uniform(generator, batch, len(patch_size)) * (size - edges + 1)).floor().clamp(max=size - edges)
    wanted = _uniform(generator, batch, 1) < probability
    return _boxes(start, start + edges * wanted, patch_size, device)


def axes_cut(patch_size: Sequence[int]) -> list[int]:
    """The axes along which a box is shorter than the patch."""
    return [axis for axis, length in enumerate(patch_size) if length >= SHORTEST_CUT] or [*range(len(patch_size))]


def draw_clipped_boxes(
    share: Tensor | float, batch: int, patch_size: Sequence[int], generator: torch.Generator, device: torch.device | str
) -> Tensor:
    """One box per sample around a uniform centre, cut off by the border of the patch.

    Source: AD-MT, with share = 1 - lambda and lambda ~ Beta(4, 4), one for the batch.

    Args:
        share: in [0, 1]; every edge has floor(P sqrt(share)) voxels, in 3D too; 0 gives no box.
        batch, patch_size, generator, device: as in :func:`draw_boxes`.

    Returns:
        (B, 1, *P) bool, true inside.
    """
    size = torch.tensor(patch_size, dtype=torch.float32, device=generator.device)
    edges = (size * torch.as_tensor(share, device=generator.device).sqrt() + ROUNDING).floor()
    centre = (size / 8 + _uniform(generator, batch, len(patch_size)) * size * 7 / 8).floor()
    start = centre - (edges / 2).floor()
    return _boxes(start.clamp(min=0), torch.minimum(start + edges, size), patch_size, device)


def mix(inside: Tensor, outside: Tensor, box: Tensor) -> Tensor:
    """``inside`` in the box and ``outside`` elsewhere: images, labels, confidences and masks alike, (B, C, *P).

    Args:
        box: (B, 1, *P) bool, see :func:`draw_boxes`.
    """
    return torch.where(box, inside, outside)


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _proportions(generator: torch.Generator, batch: int, axes: int, aspect: float) -> Tensor:
    """(B, axes) relative edges up to a common factor, their product 1."""
    if axes == 2:
        ratio = 1 / aspect + (aspect - 1 / aspect) * _uniform(generator, batch)
        return torch.stack((ratio.sqrt(), ratio.rsqrt()), 1)
    spread = (_uniform(generator, batch, axes) - 0.5) * math.log(aspect)
    return (spread - spread.mean(1, keepdim=True)).exp()


def _edges(share: Tensor, proportions: Tensor) -> Tensor:
    """Relative edges (B, axes) of product ``share`` (B, 1), none above 1, otherwise in these proportions."""
    edges = proportions * share ** (1 / proportions.shape[1])
    for _ in range(proportions.shape[1] - 1):  # one axis more may reach the border each time
        full = edges >= 1
        free = (~full).sum(1, keepdim=True).clamp(min=1)
        product = torch.where(full, 1.0, edges).prod(1, keepdim=True)
        edges = torch.where(full, 1.0, edges * (share / product) ** (1 / free))
    return edges.clamp(max=1)


def _boxes(start: Tensor, stop: Tensor, patch_size: Sequence[int], device: torch.device | str) -> Tensor:
    """(B, 1, *P) bool: start <= voxel < stop on every axis, (B, axes) each."""
    start, stop = (limit.to(device, non_blocking=True) for limit in (start, stop))
    box = torch.ones(len(start), 1, *patch_size, dtype=torch.bool, device=device)
    for axis, length in enumerate(patch_size):
        place = torch.arange(length, device=device)
        inside = (place >= start[:, axis : axis + 1]) & (place < stop[:, axis : axis + 1])
        box &= inside.view(len(start), 1, *(length if a == axis else 1 for a in range(len(patch_size))))
    return box
