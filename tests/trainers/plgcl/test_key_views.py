from __future__ import annotations

import pytest
import torch

from nnunet_ssl.trainers.plgcl.key_views import key_views


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(300, 2, 12, 8), (60, 1, 8, 6, 4)])
def test_views_stay_in_range_differ_and_repeat(shape):
    patches = torch.rand(shape, generator=chance(1))
    views = key_views(patches, chance())
    assert views.shape == shape and views.min() >= 0 and views.max() <= 1
    assert ((views - patches).abs().flatten(1).amax(1) > 0.05).float().mean() > 0.95
    assert torch.equal(views, key_views(patches, chance())) and not torch.equal(views, key_views(patches, chance(2)))


def test_geometry_is_flips_and_small_crops():
    """A ramp along one axis: its slope says whether the patch was flipped and how much of it was kept."""
    ramp = torch.linspace(0.4, 0.6, 40)  # so flat that contrast and brightness stay in range
    patches = ramp[:, None].expand(400, 1, 40, 6).clone()
    views = key_views(patches, chance())
    slope = views[:, 0, -8:].mean((1, 2)) - views[:, 0, :8].mean((1, 2))
    assert 0.4 < (slope > 0).float().mean() < 0.6
    level = views.mean((1, 2, 3)) / 0.5
    assert 0.48 <= level.min() < 0.6 and 1.4 < level.max() <= 1.52  # brightness
    relative = slope.abs() / level / (0.2 * 32 / 39)
    assert 0.35 < relative.min() < 0.65 and 1.3 < relative.max() < 1.65  # contrast times the share that was kept


def test_black_stays_nearly_black():
    views = key_views(torch.zeros(50, 1, 16, 16), chance())
    assert views.max() < 0.3 and 0.005 < views.mean() < 0.02  # the positive half of noise of up to 0.05
