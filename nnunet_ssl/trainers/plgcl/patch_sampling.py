"""Class-aware patch sampling: which windows of a batch show class k, and which of them are alike.

Source: PLGCL (Basak & Yin, CVPR 2023), Sec. 3.1, Eqs. 1-3. Pure functions of tensors; none synchronises with the
device, so results have a fixed shape and a mask. B images, K classes, W windows per image, N = B W in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_ssl.losses.gaussian_contrast import binary_entropy
from nnunet_ssl.losses.precision import float32_region
from nnunet_ssl.trainers.plgcl.patch_grid import PatchGrid

ANCHORS = ("confidence", "max", "uniform")
SIMILARITIES = ("entropy", "confidence", "cosine")
MIN_VOXELS = 10  # of the class in a window; the released code drops contours of up to 10 pixels
MIN_SHARE = 0.1  # of the voxels of the class in the window of the batch that has most
MIN_VALID = 0.5  # share of a window that is no padding

# ---- scores of the windows


class WindowScores(NamedTuple):
    """Of every window and class.

    Attributes:
        confidence: (B, K, W), mean of C, Eq. 1.
        entropy: (B, K, W), mean entropy of the attended intensities, Eq. 2.
        voxels: (B, K, W), voxels whose hard label is the class.
        valid: (B, W), share of voxels that are no padding.
    """

    confidence: Tensor
    entropy: Tensor
    voxels: Tensor
    valid: Tensor


@torch.no_grad()
def score_windows(
    unit: Tensor, confidence: Tensor, valid: Tensor, grid: PatchGrid, has_regions: bool = False
) -> WindowScores:
    """Score every window of the batch.

    Args:
        unit: (B, C, *S) images in [0, 1]; every channel is attended alike, and their entropies are averaged.
        confidence: (B, K, *S), see :mod:`nnunet_ssl.trainers.plgcl.confidence_maps`.
        valid: (B, 1, *S), true or 1 where a voxel is no padding.
        grid: the windows.
        has_regions: a voxel may have several hard labels (C >= 0.5), else the most probable one.
    """
    label = None if has_regions else confidence.max(1).indices
    sums = []
    for k in range(confidence.shape[1]):  # one class at a time: all of them may not fit into memory
        c = confidence[:, k]
        attended = binary_entropy(unit * c[:, None]).mean(1)
        hard = c >= 0.5 if label is None else label == k
        sums.append(window_sums(torch.stack([c, attended, hard.float()], 1), grid))
    total = torch.stack(sums, 2)  # (B, 3, K, W)
    mean = total / grid.voxels
    share = window_sums(valid[:, 0].float(), grid) / grid.voxels
    return WindowScores(mean[:, 0], mean[:, 1], total[:, 2], share)


def window_sums(volume: Tensor, grid: PatchGrid) -> Tensor:
    """Sums over the windows of (..., *S) -> (..., W), the last axis of the grid fastest; axis by axis, in float32."""
    dimensions = len(grid.size)
    with float32_region(volume.device):
        for axis in reversed(range(dimensions)):
            inside = _inside(grid, axis, volume.shape[-1], volume.device)
            volume = (volume.float() @ inside).movedim(-1, -dimensions)
    return volume.flatten(-dimensions)


@lru_cache(maxsize=64)
def _inside(grid: PatchGrid, axis: int, length: int, device: torch.device) -> Tensor:
    """(L, windows along the axis): 1 where a voxel lies in the window."""
    table = torch.zeros(length, len(grid.starts[axis]))
    for window, start in enumerate(grid.starts[axis]):
        table[start : start + grid.size[axis], window] = 1.0
    return table.to(device, non_blocking=True)


# ---- selection


class Selection(NamedTuple):
    """Up to n + 1 windows of each of M classes, the anchor first.

    Attributes:
        windows: (M, n + 1) int64, image * W + window.
        classes: (M,) int64.
        valid: (M, n + 1) bool; the other entries are fillers.
        candidates: (K,) int64, windows that could have been chosen.
    """

    windows: Tensor
    classes: Tensor
    valid: Tensor
    candidates: Tensor


@torch.no_grad()
def select_windows(
    scores: WindowScores,
    unit: Tensor,
    confidence: Tensor,
    grid: PatchGrid,
    generator: torch.Generator,
    *,
    neighbours: int = 20,
    max_classes: int = 8,
    anchor: str = "confidence",
    similarity: str = "entropy",
    min_voxels: float = MIN_VOXELS,
    min_share: float = MIN_SHARE,
) -> Selection:
    """For each class an anchor and the windows most similar to it.

    Args:
        scores, unit, confidence, grid: see :func:`score_windows`.
        generator: on the device of the scores; the only source of chance.
        neighbours: n, positives of an anchor.
        max_classes: classes per step, drawn among those with candidates where there are more.
        anchor: see :func:`draw_anchors`.
        similarity: by Ent, the method; by Avg or by the cosine of the attended windows, PLGCL's Table 3.
        min_voxels, min_share: see :func:`candidates`.
    """
    suited = candidates(scores, min_voxels, min_share)
    number = suited.sum(1)
    average = _by_class(scores.confidence)
    classes, drawn = draw_classes(number >= 2, max_classes, generator)
    suited = suited[classes] & drawn[:, None]
    anchors = draw_anchors(average[classes], suited, anchor, generator)
    if similarity == "cosine":
        distance = _cosine_distance(unit, confidence, grid, classes, anchors)
    else:
        score = (_by_class(scores.entropy) if similarity == "entropy" else average)[classes]
        distance = (score - score.gather(1, anchors[:, None])).abs()
    windows, valid = nearest(distance, suited, anchors, neighbours)
    return Selection(windows, classes, valid, number)


def candidates(scores: WindowScores, min_voxels: float = MIN_VOXELS, min_share: float = MIN_SHARE) -> Tensor:
    """(K, N) bool: windows that show class k in enough voxels, and are mostly no padding.

    Entropy alone does not tell bright certain tissue from tissue of other classes.

    Args:
        scores: of all windows of the batch.
        min_voxels: of the class in a window; 0 for both: wherever there is an image.
        min_share: of the voxels that the window of the batch with most of the class has.
    """
    voxels = _by_class(scores.voxels)
    most = voxels.amax(1, keepdim=True)
    return (voxels >= min_voxels) & (voxels >= min_share * most) & (scores.valid.flatten() >= MIN_VALID)


def draw_classes(present: Tensor, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(indices (M,), which of them are present (M,)), M = min(K, number); at random among those present (K,)."""
    if len(present) <= number:
        return torch.arange(len(present), device=present.device), present
    chance = torch.rand(len(present), generator=generator, device=present.device)
    chosen = (present + chance).topk(number).indices.sort().values
    return chosen, present[chosen]


def draw_anchors(average: Tensor, suited: Tensor, rule: str, generator: torch.Generator) -> Tensor:
    """One candidate per row of (M, N): with probability proportional to Avg ("confidence"), the largest, or uniformly.

    Returns:
        (M,) int64; 0 for a row without candidates.
    """
    weight = suited.float() if rule == "uniform" else average.clamp(min=1e-12) * suited
    if rule != "max":  # the first of exponential clocks; torch.multinomial would synchronise
        weight = weight / torch.empty_like(weight).exponential_(generator=generator)
    return weight.max(1).indices


def nearest(distance: Tensor, suited: Tensor, anchors: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The anchor and the ``number`` candidates closest to it, ties by index.

    Args:
        distance: (M, N) to the anchor.
        suited: (M, N) bool, candidates; fewer than two: none is valid.
        anchors: (M,) int64.

    Returns:
        indices (M, number + 1), the anchor first, and (M, number + 1) bool, which of them are meant.
    """
    count = suited.sum(1, keepdim=True)
    ranked = distance.masked_fill(~suited, torch.inf).scatter(1, anchors[:, None], -1.0)
    order = ranked.sort(dim=1, stable=True).indices[:, : number + 1]
    order = F.pad(order, (0, number + 1 - order.shape[1]))
    place = torch.arange(number + 1, device=distance.device)
    return order, (place < count) & (count >= 2)


def _by_class(values: Tensor) -> Tensor:
    return values.transpose(0, 1).flatten(1)


def _cosine_distance(unit: Tensor, confidence: Tensor, grid: PatchGrid, classes: Tensor, anchors: Tensor) -> Tensor:
    every = torch.arange(len(unit) * grid.number, device=unit.device)
    rows = []
    for k, anchor in zip(classes, anchors, strict=True):
        attended = cut_attended(unit, confidence, grid, every, k.expand_as(every)).flatten(1)
        direction = F.normalize(attended, dim=1)
        rows.append(1 - direction @ direction.index_select(0, anchor[None])[0])
    return torch.stack(rows)


# ---- cutting


def cut_attended(unit: Tensor, confidence: Tensor, grid: PatchGrid, windows: Tensor, classes: Tensor) -> Tensor:
    """Windows of the attended images x C^k in [0, 1], (N, C, *size).

    Args:
        unit: (B, C, *S); confidence: (B, K, *S).
        windows: (N,) int64, image * W + window.
        classes: (N,) int64.
    """
    image = windows // grid.number
    maps = confidence.flatten(0, 1)[:, None]
    corner = _corners(grid, windows.device)[windows % grid.number]
    attention = _cut(maps, image * confidence.shape[1] + classes, corner, grid.size)
    return _cut(unit, image, corner, grid.size) * attention


def _cut(volume: Tensor, image: Tensor, corner: Tensor, size: Sequence[int]) -> Tensor:
    dimensions = len(size)
    places: list[Any] = [image.view(-1, *[1] * dimensions), slice(None)]
    for axis, length in enumerate(size):
        place = corner[:, axis, None] + torch.arange(length, device=corner.device)
        places.append(place.view(len(corner), *[length if a == axis else 1 for a in range(dimensions)]))
    return volume[tuple(places)].movedim(-1, 1)


@lru_cache(maxsize=16)
def _corners(grid: PatchGrid, device: torch.device) -> Tensor:
    """(W, axes) first voxel of each window, in the order of :func:`window_sums`."""
    return torch.cartesian_prod(*map(torch.tensor, grid.starts)).view(grid.number, -1).to(device, non_blocking=True)
