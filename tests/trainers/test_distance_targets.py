"""Signed distances on their way from the workers to the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform

from nnunet_ssl.losses.signed_distance import signed_distance_map
from nnunet_ssl.trainers.distance_targets import (
    AddSignedDistance,
    distance_factors,
    resize_maps,
    shrink,
)
from tests.trainers.registered import make_registered


def blocks() -> torch.Tensor:
    """(1, 12, 16, 8): two boxes, labels 1 and 3, and voxels of an ignore label."""
    label = torch.zeros(1, 12, 16, 8, dtype=torch.int16)
    label[0, 2:8, 4:12, 2:6], label[0, 9:11, 2:4, 2:4], label[0, 11] = 1, 3, 9
    return label


def test_maps_have_a_name_beside_the_segmentation():
    label, spacing = blocks(), (2.0, 1.0, 0.5)
    coarser = DownsampleSegForDSTransform([[1, 1, 1], [0.5, 0.5, 0.5]])
    step = AddSignedDistance([1, 2, 3], 0, spacing, [1, 1, 1])
    out = ComposeTransforms([coarser, step])(image=torch.zeros(1, 12, 16, 8), segmentation=label.clone())
    (finest, coarse), maps = out["segmentation"], out["distance"]
    assert torch.equal(finest, label) and coarse.shape == (1, 6, 8, 4)
    assert maps.shape == (3, 12, 16, 8) and maps.dtype == torch.float32
    for k, value in enumerate((1, 2, 3)):
        torch.testing.assert_close(maps[k], signed_distance_map(label[0] == value, spacing))
    assert (maps[1] == 1).all()
    assert torch.equal(step(segmentation=label)["distance"], maps)


def test_regions_have_maps_of_their_own_and_the_ignore_channel_has_none():
    label = blocks()
    regions = torch.cat((label == 1, (label == 1) | (label == 3), label == 9))
    step = AddSignedDistance(None, 2, (1.0,) * 3, [1, 1, 1])
    maps = step(segmentation=regions)["distance"]
    assert maps.shape == (2, 12, 16, 8)
    torch.testing.assert_close(maps[1], signed_distance_map(regions[1]))


def test_distances_in_voxels_or_in_millimetres(ready_dataset):
    trainer = make_registered(ready_dataset(spacing=(4.0, 1.0, 1.0)), "nnUNetTrainerLDC", "3d_fullres")
    parts = trainer.label_manager, trainer.configuration_manager
    assert trainer.configuration_manager.spacing == [4.0, 1.0, 1.0]
    in_mm, in_voxels = (AddSignedDistance.of_plans(*parts, unit) for unit in ("mm", "voxel"))
    assert in_mm.fine_spacing == [4.0, 1.0, 1.0] and in_voxels.fine_spacing == [1.0, 1.0, 1.0]
    assert in_mm.factors == in_voxels.factors == [1, 2, 2]  # thick slices stay


def test_half_resolution_is_close_to_the_whole_one():
    label = blocks()
    whole, half = (AddSignedDistance([1], 0, (1.0,) * 3, [f] * 3)(segmentation=label)["distance"] for f in (1, 2))
    assert half.shape == (1, 6, 8, 4)
    enlarged = resize_maps(half[None], (12, 16, 8))[0]
    assert enlarged.shape == whole.shape
    difference = (enlarged - whole).abs()
    assert difference.mean() < 0.13
    assert ((enlarged < 0) == (whole < 0)).float().mean() > 0.9
    assert resize_maps(whole, (16, 8)) is whole


@pytest.mark.parametrize("start", [4, 5])
@pytest.mark.parametrize("thickness", [3, 4])
def test_thin_objects_have_an_inside_at_half_resolution(start, thickness):
    """On the coarse grid they are all boundary, whose distance is 0."""
    label = torch.zeros(1, 16, 16, 16)
    label[0, start : start + thickness, 3:13, 3:13] = 1
    whole, half = (AddSignedDistance([1], 0, (1.0,) * 3, [f] * 3)(segmentation=label)["distance"] for f in (1, 2))
    enlarged = resize_maps(half[None], (16, 16, 16))[0]
    assert half.shape == (1, 8, 8, 8) and half.min() >= -1 and half.max() <= 1
    deep = whole < -0.9
    assert deep.any() and (enlarged[deep] < 0).all()
    assert (enlarged[label == 0] >= 0).float().mean() > 0.9
    line = torch.zeros(1, 16, 16, 16)
    line[0, 7] = 1  # no inside at full resolution either
    found = AddSignedDistance([1], 0, (1.0,) * 3, [2] * 3)(segmentation=line)["distance"]
    torch.testing.assert_close(found[0], signed_distance_map(shrink(line > 0, [2] * 3)[0], (2.0,) * 3))


def test_resized_maps_keep_the_place_of_voxels():
    ramp = torch.arange(16.0).view(1, 1, 16, 1).expand(1, 1, 16, 4)
    coarse = ramp.unflatten(2, (8, 2)).mean(3)[..., ::2]
    torch.testing.assert_close(resize_maps(coarse, (16, 4))[:, :, 1:-1], ramp[:, :, 1:-1])


def test_spacing_of_a_coarser_grid():
    step = AddSignedDistance([1], 0, (3.0, 1.0), [1, 2])
    assert step.spacing == [3.0, 2.0]
    label = torch.zeros(1, 6, 16)
    label[0, :4, 4:12] = 1
    maps = step(segmentation=label)["distance"]
    mask = np.zeros((6, 8), bool)
    mask[:4, 2:6] = True
    np.testing.assert_allclose(maps[0].numpy(), signed_distance_map(mask, (3.0, 2.0)))


def test_no_object_is_lost_at_half_resolution():
    masks = torch.zeros(3, 8, 8, dtype=torch.bool)
    masks[0, 3, 3] = True  # a single voxel
    masks[1, 2:4, 2:5] = True  # one block, and half of the next
    small = shrink(masks, [2, 2])
    assert small.dtype == torch.bool
    assert small[0].nonzero().tolist() == [[1, 1]]
    assert small[1].nonzero().tolist() == [[1, 1], [1, 2]]
    assert not small[2].any()
    assert shrink(masks, [1, 1]) is masks


@pytest.mark.parametrize("patch, spacing, expected", [
    ((40, 56, 40), (1.0, 1.0, 1.0), [2, 2, 2]),
    ((40, 56), (1.0, 1.0), [1, 1]),
    ((8, 64, 64), (5.0, 1.5, 1.5), [1, 2, 2]),
    ((9, 64, 6), (1.0, 1.0, 1.0), [1, 2, 1]),
])  # fmt: skip
def test_axes_that_are_halved(patch, spacing, expected):
    assert distance_factors(patch, spacing) == expected
