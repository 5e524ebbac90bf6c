"""Signed distance maps: values by hand, edges, degenerate masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import (
    binary_erosion,
    distance_transform_edt,
    gaussian_filter,
    generate_binary_structure,
    grey_dilation,
    grey_erosion,
)

from nnunet_ssl.losses.signed_distance import signed_distance_map, signed_distance_mse

ROW = np.array([0, 0, 1, 1, 1, 0, 0, 0])


def test_row():
    expected = [2 / 3, 1 / 3, 0, -1, 0, 1 / 3, 2 / 3, 1]
    for mask in (ROW, ROW.astype(bool), torch.from_numpy(ROW)):
        found = signed_distance_map(mask)
        assert type(found) is type(mask) if isinstance(mask, torch.Tensor) else isinstance(found, np.ndarray)
        assert found.tolist() == pytest.approx(expected)
    assert signed_distance_map(torch.from_numpy(ROW)).dtype == torch.float32


def test_row_of_five_in_nine():
    mask = np.zeros(9)
    mask[2:7] = 1
    expected = [1, 0.5, 0, -0.66666667, -1, -0.66666667, 0, 0.5, 1]
    assert signed_distance_map(mask).tolist() == pytest.approx(expected, abs=3e-8)  # in float32


def test_square():
    mask = np.zeros((7, 7))
    mask[1:6, 1:6] = 1
    found = signed_distance_map(mask)
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    assert found[3, 3] == -1 and found[2:5, 2:5][ring] == pytest.approx(-2 / 3)
    boundary = mask.astype(bool)
    boundary[2:5, 2:5] = False
    assert not found[boundary].any()
    assert found[0, 1:6] == pytest.approx(1 / math.sqrt(2)) and found[0, 0] == found[6, 0] == 1


@pytest.mark.parametrize("shape", [(5,), (4, 3), (3, 4, 2)])
def test_empty_and_full_masks(shape):
    assert (signed_distance_map(np.zeros(shape)) == 1).all()
    assert (signed_distance_map(np.ones(shape)) == -1).all()


def test_spacing_weighs_the_axes():
    mask = np.zeros((3, 5))
    mask[1, 2] = 1
    found = signed_distance_map(mask, (3.0, 1.0))
    far = math.hypot(3, 2)
    assert found[1].tolist() == pytest.approx([2 / far, 1 / far, 0, 1 / far, 2 / far])
    assert found[0, 2] == pytest.approx(3 / far) and found[0, 0] == 1
    with pytest.raises(ValueError, match="1 spacings for a mask of 2 axes"):
        signed_distance_map(mask, (1.0,))


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_formula_without_the_bounding_box(seed):
    rng = np.random.default_rng(seed)
    mask = np.zeros((9, 11, 8), bool)
    low = rng.integers(0, 5, 3)  # some touch an edge
    mask[tuple(slice(a, a + n) for a, n in zip(low, rng.integers(2, 8, 3), strict=True))] = True
    mask &= rng.random(mask.shape) < 0.9
    spacing = (2.0, 1.0, 0.5)
    outer, inner = (distance_transform_edt(m, sampling=spacing) for m in (~mask, mask))
    expected = outer / outer.max() - inner / inner.max()
    expected[mask & ~binary_erosion(mask, border_value=1)] = 0
    np.testing.assert_allclose(signed_distance_map(mask, spacing), expected, atol=1e-6)
    assert abs(expected).max() == 1


@pytest.mark.parametrize("seed", range(30))
def test_equals_the_map_of_the_released_code(seed):
    """Each side scaled from its least to its largest value, in float64; DTC's, of blobs that may touch an edge."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.normal(size=(20, 24, 16)[: 2 + seed % 2]), 2.0)
    mask = field > np.quantile(field, rng.uniform(0.5, 0.95))
    assert mask.any() and not mask.all()
    inner, outer = (distance_transform_edt(side) for side in (mask, ~mask))
    released = (outer - outer.min()) / np.ptp(outer) - (inner - inner.min()) / np.ptp(inner)
    around = generate_binary_structure(mask.ndim, 1)
    released[mask & (grey_dilation(mask, footprint=around) != grey_erosion(mask, footprint=around))] = 0
    np.testing.assert_allclose(signed_distance_map(mask), released, rtol=0, atol=3e-8)


def test_a_patch_that_cuts_an_object_has_no_boundary_there():
    assert signed_distance_map(np.array([1, 1, 1, 0, 0])).tolist() == pytest.approx([-1, -2 / 3, 0, 0.5, 1])


def test_error_counts_what_the_mask_leaves():
    target = torch.tensor([[[1.0, -1.0, 0.5]]])
    predicted = torch.zeros(1, 1, 3, requires_grad=True)
    assert signed_distance_mse(predicted, target).item() == pytest.approx(0.75)
    mask = torch.tensor([[[True, False, True]]])
    loss = signed_distance_mse(predicted, target, mask)
    assert loss.item() == pytest.approx(0.625)
    assert torch.autograd.grad(loss, predicted)[0].tolist() == [[[-1.0, 0.0, -0.5]]]
    assert signed_distance_mse(predicted, target, mask & False).item() == 0
    double = torch.randn(1, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: signed_distance_mse(x, target.expand(1, 2, 3).double(), mask), double)
