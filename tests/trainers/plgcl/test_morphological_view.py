from __future__ import annotations

import pytest
import torch

from nnunet_ssl.trainers.plgcl.morphological_view import (
    OPERATIONS,
    MorphologicalView,
    Morphology,
    PublishedView,
    Shift,
)


def apply(image: torch.Tensor, operation: str, ignore_axes=None) -> torch.Tensor:
    return Morphology(ignore_axes)._apply_to_image(image, operation=operation)


def test_operations_on_a_bright_square():
    image = torch.zeros(1, 9, 9)
    image[0, 3:6, 3:6] = 2.0
    assert apply(image, "dilation").sum() == 2 * 25 and apply(image, "erosion").sum() == 2
    assert torch.equal(apply(image, "opening"), image) and torch.equal(apply(image, "closing"), image)
    image[0, 4, 4] = 0.0  # a hole, which closing fills
    image[0, 0, 8] = 2.0  # a speck, which opening removes
    assert apply(image, "closing")[0, 4, 4] == 2 and apply(image, "opening")[0, 0, 8] == 0
    assert torch.equal(apply(image, "erosion"), -apply(-image, "dilation"))


def test_a_thin_axis_is_left_alone():
    image = torch.zeros(1, 5, 5, 5)
    image[0, 2, 2, 2] = 1.0
    assert apply(image, "dilation").sum() == 27 and apply(image, "dilation", (0,)).sum() == 9


def test_every_operation_is_drawn():
    torch.manual_seed(0)
    drawn = [Morphology().get_parameters()["operation"] for _ in range(60)]
    assert set(drawn) == set(OPERATIONS)
    shifts = torch.tensor([Shift(0.3).get_parameters()["shift"] for _ in range(400)])
    assert -0.3 <= shifts.min() < -0.28 and 0.28 < shifts.max() <= 0.3


def test_magnitudes_and_probabilities():
    """Of brightness, shift, contrast, gamma and morphology, in this order."""
    torch.manual_seed(0)
    steps = PublishedView().steps(None)
    assert [p for p, _ in steps] == [0.8, 0.5, 0.5, 0.3, 0.5]
    brightness, _, contrast, gamma, _ = (t for _, t in steps)
    x = torch.tensor([0.0, 1.0, 1.5, 2.5, 4.0]).view(1, 1, 5)  # mean 1.8, within the range that contrast keeps
    factors = torch.stack([brightness(image=x.clone())["image"][0, 0, 4] / 4 for _ in range(300)])
    assert 0.7 <= factors.min() < 0.72 and 1.28 < factors.max() <= 1.3
    found = torch.stack([contrast(image=x.clone())["image"][0, 0] for _ in range(300)])
    slope = (found[:, 3] - found[:, 2]) / (x[0, 0, 3] - x[0, 0, 2])
    assert 0.7 <= slope.min() < 0.72 and 1.28 < slope.max() <= 1.3 + 1e-5
    ratio = torch.stack([gamma(image=x.clone())["image"][0, 0] for _ in range(300)])
    ratio = (ratio - ratio.amin(1, keepdim=True)) / (ratio.amax(1, keepdim=True) - ratio.amin(1, keepdim=True))
    exponent = ratio[:, 1].log() / torch.tensor(0.25).log()  # of the voxel a quarter up the range
    assert 0.7 - 0.01 <= exponent.min() < 0.75 and 1.45 < exponent.max() <= 1.5 + 0.01


@pytest.mark.parametrize("kind", [MorphologicalView, PublishedView])
@pytest.mark.parametrize("shape", [(4, 2, 12, 14), (4, 1, 8, 12, 12)])
def test_views_differ_per_sample_and_keep_a_masked_background(kind, shape):
    torch.manual_seed(0)
    images = torch.randn(shape)
    images[..., :3] = 0.0
    view = kind((0,) if len(shape) == 5 else None, masked_channels=range(shape[1]))
    view.drawn.probabilities = [1.0] * len(view.drawn.probabilities)
    before = images.clone()
    strong = view(images)
    assert torch.equal(images, before) and strong.shape == images.shape and strong.isfinite().all()
    assert not strong[..., :3].any() and (strong - images).abs().flatten(1).amax(1).min() > 0.1


def test_the_view_is_photometric():
    """A step edge stays within a voxel of its place."""
    torch.manual_seed(1)
    images = torch.zeros(30, 1, 16, 16)
    images[..., 8:] = 3.0
    strong = PublishedView()(images)
    left, right = strong[..., :7], strong[..., 9:]
    assert (left.amax((1, 2, 3)) - left.amin((1, 2, 3))).max() < 1e-4
    assert (right.amax((1, 2, 3)) - right.amin((1, 2, 3))).max() < 1e-4
    assert (right.mean((1, 2, 3)) - left.mean((1, 2, 3))).min() > 1.0
