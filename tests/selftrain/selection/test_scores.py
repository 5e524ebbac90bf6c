"""Scores of a case, with values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_ssl.evaluation.scoring.masks import dice, mask_of
from nnunet_ssl.selftrain.selection.scores import agreement, certainty, confidence, lowest

MAPS = [np.array(values) for values in ([1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1])]


def test_dice_of_pairs():
    first, second, third = (labels == 1 for labels in MAPS)
    assert dice(first, second) == pytest.approx(0.8)
    assert dice(first, third) == pytest.approx(6 / 7)
    assert dice(second, third) == pytest.approx(2 / 3)
    assert dice(first, np.zeros(4, bool)) == 0
    assert dice(np.zeros(4, bool), np.zeros(4, bool)) is None


def test_agreement_is_the_mean_over_pairs_of_teachers():
    assert agreement(MAPS, (1,)) == pytest.approx(0.77460317, abs=5e-9)
    assert agreement(MAPS[:2], (1,)) == pytest.approx(0.8)


def test_a_class_of_no_teacher_has_no_score_and_of_one_of_two_has_0():
    assert agreement(MAPS, (2,)) is None
    assert agreement([MAPS[0], np.zeros(4, int)], (1,)) == 0
    # of three pairs the one in which both are empty is skipped
    assert agreement([MAPS[0], np.zeros(4, int), np.zeros(4, int)], (1,)) == 0


def test_agreement_of_a_region():
    """Teachers that name the parts differently agree on the whole."""
    maps = [np.array([1, 2, 0, 0]), np.array([2, 2, 0, 0])]
    assert agreement(maps, (1, 2)) == 1
    assert agreement(maps, (1,)) == 0
    assert mask_of(maps[0], (1, 2)).tolist() == [True, True, False, False]


def test_confidence_is_the_share_above_09():
    probability = np.array([0.99, 0.95, 0.91, 0.85, 0.6, 1.0])
    mask = np.array([True] * 5 + [False])
    assert confidence(probability, mask) == pytest.approx(0.6)
    assert float(probability[mask].mean()) == pytest.approx(0.86)  # which another definition would give
    assert confidence(np.array([0.9]), np.array([True])) == 0  # above, not at
    assert confidence(probability, np.zeros(6, bool)) is None


def test_certainty_is_one_minus_the_share_of_the_highest_entropy():
    half, sure = [0.5, 0.5], [1.0, 0.0]
    probabilities = np.array([half, sure]).T  # two voxels, two classes
    both = np.array([True, True])
    assert certainty(probabilities, both) == pytest.approx(0.5)
    assert certainty(probabilities, np.array([True, False])) == pytest.approx(0, abs=1e-12)
    assert certainty(probabilities, np.array([False, True])) == 1
    assert certainty(probabilities, ~both) is None
    quarter = np.array([[0.25], [0.75]])
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(2)
    assert certainty(quarter, np.array([True])) == pytest.approx(1 - entropy)
    three = np.full((3, 1), 1 / 3)
    assert certainty(three, np.array([True])) == pytest.approx(0, abs=1e-12)


def test_a_case_is_as_sure_as_its_worst_class():
    assert lowest([0.9, None, 0.4]) == 0.4
    assert lowest([None, None]) is None
    assert lowest([]) is None
