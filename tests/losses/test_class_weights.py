from __future__ import annotations

import math

import pytest
import torch

from nnunet_ssl.losses.class_weights import (
    DifficultyWeights,
    cld_keep_rates,
    crest_weights,
    distribution_weights,
    simis_weights,
)

COUNTS = torch.tensor([1000.0, 100.0, 10.0])


@pytest.mark.parametrize(
    ("rule", "given", "expected"),
    [
        (crest_weights, COUNTS, [0.21544347, 0.46415888, 1.0]),
        (simis_weights, COUNTS, [0.0, 2.43243243, 2.67567568]),
        (cld_keep_rates, torch.tensor([0.9, 0.6, 0.3]), [0.37796447, 0.75592895, 1.0]),
        (distribution_weights, COUNTS, [0.0, 1.5, 3.0]),
        (distribution_weights, torch.tensor([math.e * 7, 7.0]), [0.0, 2.0]),
    ],
)
def test_values_of_the_specifications(rule, given, expected):
    assert rule(given.double()).tolist() == pytest.approx(expected, abs=1e-7)
    assert rule(given).tolist() == pytest.approx(expected, abs=1e-5)


def test_crest_weights_follow_the_rank_and_not_the_order():
    assert crest_weights(torch.tensor([10, 1000, 100])).tolist() == pytest.approx([1.0, 0.21544347, 0.46415888])


@pytest.mark.parametrize("rule", [crest_weights, simis_weights, cld_keep_rates, distribution_weights])
@pytest.mark.parametrize(
    "given", [[0.0, 0.0, 0.0], [5.0, 5.0, 5.0], [1.0, 1.0, 1.0], [1e12, 0.0, 1.0], [0, 10**9, 3]], ids=str
)
def test_no_weight_is_nan_or_infinite(rule, given):
    weights = rule(torch.tensor(given))
    assert torch.isfinite(weights).all() and (weights >= 0).all() and (weights <= len(given)).all()


def test_equal_counts_weigh_all_classes_alike():
    assert distribution_weights(torch.tensor([7.0, 7.0, 7.0])).tolist() == [3.0, 3.0, 3.0]
    assert cld_keep_rates(torch.ones(3)).tolist() == [1.0, 1.0, 1.0]


def test_an_absent_class_does_not_squeeze_the_others():
    counts = torch.tensor([1000.0, 100.0, 0.0], dtype=torch.float64)
    assert distribution_weights(counts, least=0.0).tolist() == pytest.approx([0, 0.27272727, 3], abs=1e-7)  # released
    assert distribution_weights(counts).tolist() == pytest.approx([0, 1.0, 3.0], abs=1e-7)


def test_difficulty_of_two_steps():
    weights = DifficultyWeights(2, skip_first=True)
    assert weights.update(torch.tensor([0.5, 0.5])).tolist() == [2.0, 2.0]  # stored, compared with nothing
    first = weights.update(torch.tensor([0.6, 0.4]))
    assert weights.learned.tolist() == pytest.approx([3.6464e-4, 0.0], abs=1e-8)
    assert weights.unlearned.tolist() == pytest.approx([0.0, 4.4629e-4], abs=1e-8)
    assert weights.badness.tolist() == pytest.approx([0.988, 0.992])
    assert first.tolist() == pytest.approx([0.0286401, 2.0], abs=1e-5)
    second = weights.update(torch.tensor([0.7, 0.4]))
    assert weights.learned.tolist() == pytest.approx([6.6565e-4, 0.0], abs=1e-8)
    assert weights.unlearned.tolist() == pytest.approx([0.0, 4.3736e-4], abs=1e-8)
    assert weights.badness.tolist() == pytest.approx([0.97424, 0.98416])
    assert second.tolist() == pytest.approx([0.02534017, 2.0], abs=1e-5)


def test_released_first_step_compares_with_nearly_nothing():
    weights = DifficultyWeights(2, skip_first=False)
    found = weights.update(torch.tensor([0.9, 0.2]))
    assert weights.learned.tolist() == pytest.approx([0.32967576, 0.06724497], abs=1e-6)
    assert weights.badness.tolist() == pytest.approx([0.982, 0.996], abs=1e-6)
    assert found.tolist() == pytest.approx([1.43481765, 2.0], abs=1e-5)


def test_constant_dice_leaves_the_badness():
    weights = DifficultyWeights(2)
    for _ in range(200):
        found = weights.update(torch.tensor([0.9, 0.6]))
    assert (found / weights.badness).tolist() == pytest.approx([(found / weights.badness)[0].item()] * 2)


def test_absent_classes_keep_their_state():
    weights = DifficultyWeights(3)
    weights.update(torch.tensor([0.5, 0.5, 0.5]))
    before = weights.state_dict()
    weights.update(torch.tensor([0.6, 0.6, 0.1]), torch.tensor([True, True, False]))
    after = weights.state_dict()
    assert all(torch.equal(before[name][2], after[name][2]) for name in before)
    assert all(not torch.equal(before[name][:2], after[name][:2]) for name in ("previous", "learned", "badness"))


def test_state_continues():
    first, second = DifficultyWeights(2), DifficultyWeights(2)
    for step in ([0.5, 0.5], [0.6, 0.4]):
        first.update(torch.tensor(step))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.update(torch.tensor([0.7, 0.2])), second.update(torch.tensor([0.7, 0.2])))
