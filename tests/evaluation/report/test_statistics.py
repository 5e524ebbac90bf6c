"""Against scipy, and against values computed by hand."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nnunet_ssl.evaluation.report.statistics import bootstrap_interval, group_means, holm, smallest_p, wilcoxon_p


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_wilcoxon_equals_scipy():
    differences = np.random.default_rng(1).normal(0.4, 1, 30)
    assert wilcoxon_p(differences) == pytest.approx(stats.wilcoxon(differences).pvalue, rel=1e-12)


def test_wilcoxon_by_hand():
    """All of one sign: of the 2^4 ways to give signs, the one that is seen and its opposite."""
    assert wilcoxon_p([0.01, 0.02, 0.03, 0.04]) == pytest.approx(2 / 16)
    assert wilcoxon_p([-0.1, 0.2, 0.3, 0.4]) == pytest.approx(4 / 16)  # rank sum 1 or less: {}, {1}


def test_wilcoxon_of_zeros():
    assert wilcoxon_p([0.0] * 8) == 1.0
    assert wilcoxon_p([0.9 - 0.8 - 0.1, 0.8 - 0.7 - 0.1, 0.0]) == 1.0  # zero but for rounding
    assert wilcoxon_p([0, 0, 1, 2, 3, 4]) == pytest.approx(2 / 16)  # zeros are dropped


def test_wilcoxon_of_one_difference_is_undefined():
    assert wilcoxon_p([0.3]) is None
    assert wilcoxon_p([]) is None


def test_ties_are_ties_in_spite_of_rounding():
    exact = wilcoxon_p([1, 1, 1, -2, 3])
    assert wilcoxon_p([0.9 - 0.8, 0.8 - 0.7, 0.1, -0.2, 0.3]) == pytest.approx(exact, rel=1e-12)


def test_holm_by_hand():
    """Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.5."""
    assert [*holm(pd.Series([0.02, 0.5, 0.01, 0.03]))] == pytest.approx([0.06, 0.5, 0.04, 0.06])


def test_holm_stays_monotone_and_at_most_one():
    assert [*holm(pd.Series([0.01, 0.011]))] == pytest.approx([0.02, 0.02])
    assert [*holm(pd.Series([0.6, 0.7]))] == [1.0, 1.0]


def test_holm_leaves_out_what_was_not_tested():
    assert [*holm(pd.Series([None, 0.04, None]))] == pytest.approx([math.nan, 0.04, math.nan], nan_ok=True)
    assert [*holm(pd.Series([None, None], dtype=object))] == pytest.approx([math.nan] * 2, nan_ok=True)
    assert len(holm(pd.Series([], dtype=float))) == 0


def test_smallest_p():
    assert [smallest_p(n) for n in (1, 2, 5, 6)] == pytest.approx([1.0, 0.5, 0.0625, 0.03125])


def test_interval_equals_scipy_for_single_cases():
    values = np.random.default_rng(2).normal(1, 0.5, 25)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    assert bootstrap_interval(values) == pytest.approx(tuple(expected), abs=0.02)


def test_interval_is_the_same_every_time():
    values = np.random.default_rng(4).normal(0, 1, 40)
    assert bootstrap_interval(values) == bootstrap_interval(values)


def test_interval_over_subjects_draws_whole_subjects():
    """Two subjects: means of a draw are 0, 1 or, with one of each, (0 + 3 * 1) / 4. So the ends are 0 and 1."""
    values, subjects = [0.0, 1.0, 1.0, 1.0], ["a", "b", "b", "b"]
    assert bootstrap_interval(values, subjects) == (0.0, 1.0)
    low, _ = bootstrap_interval(values)
    assert low > 0  # as single cases, 4 times the one 0 is rare


def test_copies_of_cases_do_not_narrow_the_interval():
    values = np.random.default_rng(3).normal(0, 1, 12)
    subjects = [s for s in range(12) for _ in range(4)]
    alone, copied = bootstrap_interval(values), bootstrap_interval(np.repeat(values, 4), subjects)
    assert copied == pytest.approx(alone)


def test_interval_of_equal_values_is_a_point():
    assert bootstrap_interval([0.3, 0.3, 0.3]) == pytest.approx((0.3, 0.3))


@pytest.mark.parametrize("values", [[], [0.3]])
def test_no_interval_of_fewer_than_two(values):
    assert bootstrap_interval(values) is None


def test_no_interval_of_one_subject():
    assert bootstrap_interval([0.1, 0.2], ["a", "a"]) is None


def test_group_means_in_order_of_appearance():
    assert group_means([1, 5, 3], ["b", "a", "b"]) == pytest.approx([2, 5])
