"""Signed distance maps of the labels, computed by the loader's workers after augmentation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import Tensor
from torch.nn import functional as F

from nnunet_ssl.losses.signed_distance import signed_distance_map

SMALLEST_HALF = 4  # positions that an axis keeps at half resolution


DISTANCE = "distance"


class AddSignedDistance(BasicTransform):
    """The last step of the augmentation: the maps (F, *P) of the segmentation under the name ``distance``.

    Args:
        labels: foreground label values; ``None``: the segmentation's first channels are regions.
        regions: how many; unused with labels.
        spacing: of a voxel.
        factors: by which the maps are coarser than the patch, per axis, 1 or 2.
    """

    def __init__(
        self, labels: Sequence[int] | None, regions: int, spacing: Sequence[float], factors: Sequence[int]
    ) -> None:
        super().__init__()
        self.labels = None if labels is None else list(labels)
        self.regions, self.factors = regions, list(factors)
        self.fine_spacing = list(spacing)
        self.spacing = [s * f for s, f in zip(spacing, factors, strict=True)]

    @classmethod
    def of_plans(cls, labels: LabelManager, plan: ConfigurationManager, unit: str = "mm") -> AddSignedDistance:
        """For all foreground classes or regions of a dataset; distances in "mm", or by "voxel" with edges of 1."""
        regions = len(labels.foreground_regions) if labels.has_regions else 0
        values = None if labels.has_regions else labels.foreground_labels
        spacing = [1.0] * len(plan.patch_size) if unit == "voxel" else plan.spacing
        return cls(values, regions, spacing, distance_factors(plan.patch_size, plan.spacing))

    def apply(self, data_dict: dict, **params) -> dict:
        segmentation = data_dict["segmentation"]
        finest = segmentation[0] if isinstance(segmentation, list) else segmentation
        if self.labels is None:
            masks = finest[: self.regions] > 0
        else:
            masks = torch.cat([finest[:1] == label for label in self.labels])
        maps = [self._map(*pair) for pair in zip(masks, shrink(masks, self.factors), strict=True)]
        return {**data_dict, DISTANCE: torch.stack(maps)}

    def _map(self, mask: Tensor, small: Tensor) -> Tensor:
        """Of an object so thin that no voxel of the coarse grid is inside it: the fine map, averaged."""
        found = signed_distance_map(small, self.spacing)
        if max(self.factors) == 1 or found.min() < 0 or not mask.any():
            return found
        fine = signed_distance_map(mask, self.fine_spacing)
        return shrunk_mean(fine[None], self.factors)[0] if fine.min() < 0 else found


def shrink(masks: Tensor, factors: Sequence[int]) -> Tensor:
    """Masks (F, *S) at a lower resolution: inside where at least half of the voxels are.

    Of an object too small for that, all that it touches is inside, so that no object is lost.
    """
    if max(factors) == 1:
        return masks
    share = shrunk_mean(masks.float(), factors)
    lost = ~(share >= 0.5).flatten(1).any(1).view(-1, *[1] * len(factors))
    return torch.where(lost, share > 0, share >= 0.5)


def shrunk_mean(volumes: Tensor, factors: Sequence[int]) -> Tensor:
    """Means over blocks of as many voxels as the factors say, of (F, *S)."""
    pool = F.avg_pool3d if len(factors) == 3 else F.avg_pool2d
    return pool(volumes, tuple(factors))


def distance_factors(patch_size: Sequence[int], spacing: Sequence[float]) -> list[int]:
    """2 for the axes whose resolution is halved: in 3D even ones, long enough, and without thick slices already."""
    if len(patch_size) == 2:
        return [1, 1]
    return [
        2 if size % 2 == 0 and size >= 2 * SMALLEST_HALF and step < 2 * min(spacing) else 1
        for size, step in zip(patch_size, spacing, strict=True)
    ]


def resize_maps(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (B, F, *S) at the resolution of the patch, linearly."""
    if list(maps.shape[2:]) == list(size):
        return maps
    mode = "trilinear" if len(size) == 3 else "bilinear"
    return F.interpolate(maps, tuple(size), mode=mode, align_corners=False)
