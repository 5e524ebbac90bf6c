from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from nnunet_ssl.trainers.bcp.components import classes_in_one_piece, largest_components, without_waiting

WAYS = (largest_components, without_waiting)  # on a CPU, elsewhere


def by_scipy(mask: np.ndarray) -> int:
    """Voxels of the largest component."""
    found, _ = ndimage.label(mask, np.ones([3] * mask.ndim))
    return int(np.bincount(found.flat)[1:].max(initial=0))


def picture(*rows: str) -> torch.Tensor:
    return torch.tensor([[c == "#" for c in row] for row in rows]).view(1, 1, len(rows), -1)


@pytest.mark.parametrize("largest", WAYS)
def test_the_larger_of_two_stays_and_corners_connect(largest):
    given = picture("##...##", "#....#.", "....#..", ".......", "###....")
    kept = largest(given)
    assert torch.equal(kept, picture(".....##", ".....#.", "....#..", ".......", "......."))
    empty = torch.zeros_like(given)
    assert torch.equal(largest(torch.cat([given, empty], 1)), torch.cat([kept, empty], 1))
    assert torch.equal(largest(torch.cat([empty, given])), torch.cat([empty, kept]))


@pytest.mark.parametrize("largest", WAYS)
@pytest.mark.parametrize("shape", [(3, 2, 40, 56), (2, 1, 24, 20, 28)], ids=str)
def test_random_blobs_as_scipy_finds_them(shape, largest):
    rng = np.random.default_rng(0)
    for smoothness in (0.6, 1.5, 3.0):
        fields = np.stack(
            [ndimage.gaussian_filter(rng.normal(size=shape[2:]), smoothness) for _ in range(shape[0] * shape[1])]
        )
        given = torch.from_numpy(fields > np.quantile(fields, 0.75)).view(shape)
        kept = largest(given)
        assert not (kept & ~given).any()
        for mask, found in zip(given.flatten(0, 1).numpy(), kept.flatten(0, 1).numpy(), strict=True):
            assert found.sum() == by_scipy(found) == by_scipy(mask)


@pytest.mark.parametrize("largest", WAYS)
def test_a_long_winding_shape_is_one(largest):
    snake = torch.zeros(1, 1, 33, 33, dtype=torch.bool)
    snake[..., ::4, :] = True
    snake[..., 1:4, -1] = snake[..., 9:12, -1] = snake[..., 17:20, -1] = snake[..., 25:28, -1] = True
    snake[..., 5:8, 0] = snake[..., 13:16, 0] = snake[..., 21:24, 0] = snake[..., 29:32, 0] = True
    assert by_scipy(snake[0, 0].numpy()) == snake.sum()
    assert torch.equal(largest(snake), snake)


def test_which_classes_are_one_piece():
    volume = np.zeros((2, 9, 9), int)
    volume[:, 1:4, 1:4] = 1
    volume[0, 6:8, 1:3] = volume[0, 6:8, 6:8] = 2
    volume[1, 6, 6] = 3
    classes = [(1,), (2,), (3,), (1, 2)]
    assert classes_in_one_piece([volume], classes, slices=False) == [True, False, True, False]
    volume[0, 6:8, 6:8], volume[1, 6:8, 6:8] = 0, 2
    assert classes_in_one_piece([volume], [(2,)], slices=False) == [False]
    assert classes_in_one_piece([volume], [(2,)], slices=True) == [True]  # one in each slice
    big = np.zeros((1, 40, 40), int)
    big[0, :30, :30] = 1
    big[0, 35, 35] = 1
    assert classes_in_one_piece([big], [(1,)], slices=False) == [True]  # a voxel astray is no second piece
    assert classes_in_one_piece([big, volume[:1] * 0 + np.eye(9, dtype=int)[None] % 2], [(1,)], slices=True) == [True]
