"""Normalised intensities mapped to [0, 1], per normalisation of nnU-Net."""

from __future__ import annotations

import pytest
import torch

from nnunet_ssl.losses.gaussian_contrast import binary_entropy
from nnunet_ssl.trainers.plgcl.rescale_intensity import fixed_ranges, from_unit, intensity_range, to_unit

CT = {"mean": 50.0, "std": 25.0, "percentile_00_5": -50.0, "percentile_99_5": 200.0}


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_ranges_of_the_normalisations():
    schemes = ["CTNormalization", "ZScoreNormalization", "RescaleTo01Normalization", "RGBTo01Normalization",
               "NoNormalization"]  # fmt: skip
    assert fixed_ranges(schemes, {"0": CT}) == [(-4.0, 6.0), None, (0.0, 1.0), (0.0, 1.0), None]
    x = images(2, 5, 40, 40)
    low, high = intensity_range(x, fixed_ranges(schemes, {"0": CT}))
    assert low[:, [0, 2, 3]].tolist() == [[-4, 0, 0]] * 2 and high[:, [0, 2, 3]].tolist() == [[6, 1, 1]] * 2
    for b in range(2):
        for c in (1, 4):
            expected = torch.quantile(x[b, c].flatten(), torch.tensor([0.005, 0.995]))
            torch.testing.assert_close(torch.stack([low[b, c], high[b, c]]), expected)


def test_large_crops_are_sampled():
    x = torch.arange(64.0**3).view(1, 1, 64, 64, 64)
    low, high = intensity_range(x, [None])
    assert low.item() == pytest.approx(0.005 * 64**3, rel=1e-2)
    assert high.item() == pytest.approx(0.995 * 64**3, rel=1e-4)


def test_there_and_back():
    x = torch.tensor([-4.0, -6.0, 1.0, 6.0, 9.0]).view(1, 1, 5)
    low, high = torch.tensor([[-4.0]]), torch.tensor([[6.0]])
    unit = to_unit(x, low, high)
    assert unit.flatten().tolist() == [0, 0, 0.5, 1, 1]
    assert from_unit(unit, low, high).flatten().tolist() == [-4, -4, 1, 6, 6]
    # attention in [0, 1] paints what it does not attend with the darkest value, not with the mean
    assert from_unit(unit * 0, low, high).flatten().tolist() == [-4] * 5


def test_a_constant_image_is_black():
    x = torch.full((1, 2, 4, 4), 3.0)
    x[:, 1] += images(4, 4)
    unit = to_unit(x, *intensity_range(x, [None, None]))
    assert not unit[:, 0].any() and unit[:, 1].any() and unit.isfinite().all()


def test_z_scored_images_have_an_entropy_whatever_their_scale():
    x = images(3, 2, 30, 30)
    assert binary_entropy(x).isnan().any()  # without the mapping

    def entropy(values: torch.Tensor) -> torch.Tensor:
        return binary_entropy(to_unit(values, *intensity_range(values, [None, None])))

    assert entropy(x).isfinite().all()
    torch.testing.assert_close(entropy(7 * x - 40), entropy(x), atol=2e-5, rtol=0)
