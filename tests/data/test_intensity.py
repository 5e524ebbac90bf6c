from __future__ import annotations

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from monai.transforms import RandHistogramShift
from scipy.ndimage import gaussian_filter

from nnunet_ssl.data.intensity import BlurOnDevice, HistogramShift, LocalBrightness, OnDevice, RelativeNoise
from nnunet_ssl.data.strong_view import StrongView
from nnunet_ssl.training.checkpoint import seed_everything


def test_transforms_on_device_equal_the_library():
    transforms = StrongView().drawn.transforms
    checked = [t.transform for t in transforms if isinstance(t, OnDevice)]
    assert len(checked) == 5 == len(transforms) - 4  # all but the blur and what stands in intensity.py
    for transform in checked:
        image = torch.randn(8, 6, 7, 8, generator=torch.Generator().manual_seed(0))
        seed_everything(4)
        expected = transform(image=image.clone())["image"]
        assert not torch.equal(expected, image)
        seed_everything(4)
        assert torch.equal(OnDevice(transform)(image=image.clone())["image"], expected)


def test_blur_is_a_gaussian_filter_with_replicated_border():
    blur = BlurOnDevice(GaussianBlurTransform((1.0, 1.0), False, True, 1.0))
    image = torch.randn(1, 12, 14, 10)
    expected = gaussian_filter(image[0].numpy().astype(np.float64), 1.0, mode="nearest")
    np.testing.assert_allclose(blur(image=image.clone())["image"][0].numpy(), expected, atol=1e-5)


def test_blur_touches_the_chosen_channels_alone():
    blur = BlurOnDevice(GaussianBlurTransform((0.5, 1.0), False, False, 0.5))
    seed_everything(0)
    image = torch.randn(8, 9, 9, 9)
    blurred = blur(image=image.clone())["image"]
    changed = [not torch.equal(a, b) for a, b in zip(image, blurred, strict=True)]
    assert any(changed) and not all(changed)


def test_noise_is_relative_to_each_channel():
    seed_everything(0)
    image = torch.randn(2, 40, 50) * torch.tensor([1.0, 100.0]).view(2, 1, 1)
    added = RelativeNoise((0.1, 0.1))(image=image.clone())["image"] - image
    assert (added.std((1, 2)) / image.std((1, 2))).tolist() == pytest.approx([0.1, 0.1], rel=0.05)
    sigmas = torch.tensor([RelativeNoise((0.1, 0.3)).get_parameters(image=image)["sigmas"] for _ in range(200)])
    assert 0.1 <= sigmas.min() < 0.11 and 0.29 < sigmas.max() <= 0.3


@pytest.mark.parametrize("shape", [(2, 40, 30), (1, 10, 20, 24)])
def test_local_brightness_is_a_gaussian_bump(shape):
    seed_everything(0)
    transform, image = LocalBrightness((0.5, 0.5), (0.2, 0.2)), torch.randn(shape)
    params = transform.get_parameters(image=image)
    added = transform._apply_to_image(image.clone(), **params) - image
    for channel, (height, axes) in enumerate(params["bumps"]):
        places = [np.linspace(0, 1, n) for n in shape[1:]]
        grid = np.meshgrid(*places, indexing="ij")
        distance = sum(((x - centre) / width) ** 2 for x, (centre, width) in zip(grid, axes, strict=True))
        expected = height * float(image[channel].std(correction=0)) * np.exp(-0.5 * distance)
        np.testing.assert_allclose(added[channel].numpy(), expected, atol=1e-5)
    signs = [b[0] > 0 for _ in range(100) for b in transform.get_parameters(image=image)["bumps"]]
    assert any(signs) and not all(signs)


def test_histogram_shift_is_that_of_monai():
    seed_everything(0)
    transform, image = HistogramShift(6), torch.randn(2, 30, 20)
    params = transform.get_parameters(image=image)
    shifted = transform._apply_to_image(image.clone(), **params)
    reference = RandHistogramShift(6, prob=1.0)
    reference.randomize()
    for before, after, heights in zip(image, shifted, params["maps"], strict=True):
        assert (heights.diff() >= 0).all() and heights[0] == 0 and heights[-1] == 1
        reference.floating_control_points = heights.numpy()
        expected = torch.as_tensor(np.asarray(reference(before.clone(), randomize=False)))
        torch.testing.assert_close(after, expected.to(after.dtype), atol=1e-4, rtol=0)
    constant = torch.ones(1, 4, 4)
    assert torch.equal(transform(image=constant.clone())["image"], constant)
