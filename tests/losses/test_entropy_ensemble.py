from __future__ import annotations

import pytest
import torch

from nnunet_ssl.losses.entropy_ensemble import certainty_weighted, settle_conflicts


def voxel(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).view(1, -1, 1, 1)


@pytest.mark.parametrize(
    ("first", "second", "unit", "weight"),
    [
        ((0.9, 0.1), (0.4, 0.6), "bits", 0.62291865),
        ((0.9, 0.1), (0.4, 0.6), "nats", 0.5861),
        ((0.5, 0.5), (0.99, 0.01), "bits", 0.28511953),
        ((0.3, 0.7), (0.3, 0.7), "bits", 0.5),
    ],
)
def test_the_surer_one_weighs_more(first, second, unit, weight):
    both = certainty_weighted(voxel(*first), voxel(*second), unit=unit).flatten()
    expected = [weight * a + (1 - weight) * b for a, b in zip(first, second, strict=True)]
    assert both.tolist() == pytest.approx(expected, abs=2e-5 if unit == "nats" else 1e-8)
    assert both.sum().item() == pytest.approx(1.0)


def test_regions_have_the_mean_of_their_binary_entropies():
    first, second = voxel(0.9, 0.5), voxel(0.4, 0.5)
    h = [(0.46899559 + 1) / 2, (0.97095059 + 1) / 2]
    weight = 1 / (1 + torch.tensor(h[0] - h[1]).exp().item())
    both = certainty_weighted(first, second, regions=True).flatten().tolist()
    assert both == pytest.approx([weight * 0.9 + (1 - weight) * 0.4, 0.5], abs=1e-6)


def test_a_conflict_is_settled_by_a_surer_and_different_opinion():
    label, confidence = torch.zeros(1, 1, 4, dtype=torch.int64), torch.full((1, 1, 4), 0.71)
    conflict = torch.tensor([1, 1, 0, 1]).view(1, 1, 4).bool()
    other, sure = torch.tensor([1, 1, 1, 0]).view(1, 1, 4), torch.tensor([0.8, 0.7, 0.99, 0.99]).view(1, 1, 4)
    settled, now = settle_conflicts(label, confidence, conflict, other, sure)
    assert settled.flatten().tolist() == [1, 0, 0, 0]
    assert now.flatten().tolist() == pytest.approx([0.8, 0.71, 0.71, 0.71])


def test_no_gradient():
    p = voxel(0.9, 0.1).requires_grad_()
    assert not certainty_weighted(p, p).requires_grad
