"""InfoNCE of paired views: closed forms, symmetries, the norm floor and gradients."""

from __future__ import annotations

import math

import pytest
import torch

from nnunet_ssl.losses.info_nce import mean_similarities, paired_distance, paired_info_nce, voxelwise_info_nce

TWO_PAIRS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])


@pytest.mark.parametrize(("temperature", "value"), [(1.0, 0.551445), (0.1, 9.0796e-5)])
def test_two_orthogonal_pairs(temperature, value):
    assert paired_info_nce(TWO_PAIRS, temperature).item() == pytest.approx(value, rel=1e-5)
    maps = TWO_PAIRS[:, :, None, None].expand(-1, -1, 3, 2)
    assert voxelwise_info_nce(maps, temperature).item() == pytest.approx(value, rel=1e-5)


def test_equal_vectors_give_log_of_the_others_without_a_gradient():
    vectors = torch.tensor([[3.0, 4.0]]).repeat(4, 1).requires_grad_()
    loss = paired_info_nce(vectors)
    assert loss.item() == pytest.approx(math.log(3), abs=1e-6)
    loss.backward()
    assert vectors.grad.abs().max() < 1e-6


def test_one_anchor_by_hand():
    # unit vectors whose cosines to the first are 0.9 (its partner, row 2), 0.2 and 0.3
    rest = [(1 - c * c) ** 0.5 for c in (0.2, 0.9, 0.3)]
    vectors = torch.eye(4, dtype=torch.float64)
    for row, (cosine, other) in enumerate(zip((0.2, 0.9, 0.3), rest, strict=True), start=1):
        vectors[row] = torch.tensor([cosine if a == 0 else other if a == row else 0.0 for a in range(4)])
    (gradient_free,) = [paired_info_nce(vectors)]
    similarities = vectors @ vectors.T / 0.1
    rows = [
        -(similarities[a, p] - torch.logsumexp(similarities[a, [b for b in range(4) if b != a]], 0))
        for a, p in ((0, 2), (1, 3), (2, 0), (3, 1))
    ]
    assert rows[0].item() == pytest.approx(0.00338490, abs=1e-8)
    torch.testing.assert_close(gradient_free, torch.stack(rows).mean())


def test_one_sample_has_no_negatives():
    vectors = torch.randn(2, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = paired_info_nce(vectors)
    assert loss.item() == 0.0
    loss.backward()
    assert not vectors.grad.any()
    assert voxelwise_info_nce(torch.rand(2, 3, 4, 4)).item() == 0.0


@pytest.mark.parametrize("loss", [paired_info_nce, voxelwise_info_nce, paired_distance])
def test_views_may_be_swapped_and_samples_permuted(loss):
    maps = torch.rand(6, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    vectors = maps if loss is voxelwise_info_nce else maps.flatten(1)
    value = loss(vectors)
    torch.testing.assert_close(loss(vectors[[3, 4, 5, 0, 1, 2]]), value)
    torch.testing.assert_close(loss(vectors[[2, 0, 1, 5, 3, 4]]), value)
    assert not torch.isclose(loss(vectors[[1, 0, 2, 3, 4, 5]]), value)


def test_maps_without_foreground_are_finite():
    for value in (0.0, 1e-30):
        maps = torch.full((4, 1, 3, 3), value, requires_grad=True)
        losses = [paired_info_nce(maps.flatten(1)), voxelwise_info_nce(maps), paired_distance(maps.flatten(1))]
        assert [x.item() for x in losses] == pytest.approx([math.log(3), math.log(3), 10.0])
        sum(losses).backward()
        assert maps.grad.isfinite().all()


def test_norm_is_at_least_one():
    small = 0.25 * TWO_PAIRS
    assert paired_info_nce(small, 1.0).item() == pytest.approx(
        -math.log(math.exp(1 / 16) / (math.exp(1 / 16) + 2)), abs=1e-6
    )
    assert paired_info_nce(7 * TWO_PAIRS, 1.0).item() == pytest.approx(0.551445, abs=1e-6)


def test_of_single_voxels_it_is_the_cosine():
    small = 0.25 * TWO_PAIRS[:, :, None]
    assert voxelwise_info_nce(small, 1.0).item() == pytest.approx(0.551445, abs=1e-6)
    # agreeing on background earns as much as agreeing on foreground
    classes = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.1, 0.9]], requires_grad=True)
    loss = voxelwise_info_nce(classes[:, :, None])
    (gradient,) = torch.autograd.grad(loss, classes)
    torch.testing.assert_close(gradient[0], gradient[1].flip(0))


def closed_form(partner: float, other: float, samples: int = 4) -> float:
    """-log p of the partner among 2 * samples - 1 others of equal similarity."""
    return math.log1p((2 * samples - 2) * math.exp((other - partner) / 0.1))


@pytest.mark.parametrize(
    ("partner", "other", "value", "pull"), [(0.99, 0.30, 0.0060, 0.029), (0.84, 0.59, 0.400, 0.411)]
)
def test_infonce_of_whole_maps_dies_out_where_predictions_are_good(partner, other, value, pull):
    """Its gradient has the factor 1 - p of the partner, as small as the loss; without negatives it has none.

    Args:
        pull: its gradient's norm over that of the loss without negatives.
    """
    assert closed_form(partner, other) == pytest.approx(value, abs=5e-4)
    # eight unit vectors with these similarities
    gram = torch.full((8, 8), other, dtype=torch.float64)
    for a in range(8):
        gram[a, a], gram[a, (a + 4) % 8] = 1.0, partner
    vectors = torch.linalg.cholesky(gram + 1e-12 * torch.eye(8, dtype=torch.float64)).requires_grad_()
    loss = paired_info_nce(vectors)
    assert loss.item() == pytest.approx(closed_form(partner, other), rel=1e-5)
    norms = [torch.autograd.grad(f(vectors), vectors)[0].norm().item() for f in (paired_info_nce, paired_distance)]
    assert norms[0] / norms[1] == pytest.approx(pull, abs=0.001)


def test_bounds():
    maps = torch.rand(8, 50, generator=torch.Generator().manual_seed(0))
    for temperature in (0.1, 0.5):
        worst = maps[[0, 1, 2, 3, 1, 2, 3, 0]]
        assert 0 < paired_info_nce(worst, temperature).item() < math.log(1 + 6 * math.exp(1 / temperature))
    assert voxelwise_info_nce(maps[:, :, None]).item() > 0


def test_voxels_that_do_not_count():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(4, 3, 2, 2, generator=generator).requires_grad_()
    mask = torch.ones(4, 1, 2, 2, dtype=torch.bool)
    mask[[0, 2], :, 0, 1] = False  # both views of the first sample
    loss = voxelwise_info_nce(maps, mask=mask)
    kept = [
        voxelwise_info_nce(maps[..., i, j][..., None]) * 4 for i, j in ((0, 0), (1, 0), (1, 1))
    ]  # four anchors each
    alone = maps[[1, 3], :, 0, 1]
    zeros = torch.zeros(2, 3)
    partly = torch.stack([zeros[0], alone[0], zeros[1], alone[1]])[..., None]
    only_second = voxelwise_info_nce(partly) * 4 - 2 * math.log(3)  # the zero vectors are no anchors
    torch.testing.assert_close(loss, (sum(kept) + only_second) / 14)
    loss.backward()
    assert not maps.grad[[0, 2], :, 0, 1].any() and maps.grad[1, :, 0, 1].any()
    empty = voxelwise_info_nce(maps, mask=torch.zeros_like(mask))
    assert empty.item() == 0.0 and empty.requires_grad


def test_similarities_for_the_log():
    vectors = torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.2, 1.6], [0.0, 3.0]])
    positive, negative = mean_similarities(vectors)
    assert positive.item() == pytest.approx((0.6 + 1.0) / 2)
    assert negative.item() == pytest.approx((0 + 0 + 0.8 + 0.8) / 4)  # of the pairs (0, 1), (0, 3), (1, 2), (2, 3)


@pytest.mark.parametrize("loss", [paired_info_nce, voxelwise_info_nce, paired_distance])
def test_gradient_in_double_precision(loss):
    maps = torch.rand(4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) + 0.5
    maps = (maps if loss is voxelwise_info_nce else maps.flatten(1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, 0.5), maps)


def test_both_views_learn_and_half_precision_is_evaluated_in_float32():
    vectors = torch.rand(4, 1000, generator=torch.Generator().manual_seed(0)).half().requires_grad_()
    loss = paired_info_nce(vectors)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, paired_info_nce(vectors.float()))
    loss.backward()
    assert vectors.grad[:2].any() and vectors.grad[2:].any()
