"""Paired statistics of two methods on the same cases. Pure functions of arrays; undefined is None, never a warning."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.95
RESAMPLES = 9999
ALPHA = 0.05
DIGITS = 12  # 0.9 - 0.8 and 0.8 - 0.7 differ in the last bit, which would break ties and make zeros positive


def group_means(values: Sequence[float] | np.ndarray, groups: Sequence[Hashable]) -> np.ndarray:
    """Mean per group, in the order in which groups first appear. Shape (groups,)."""
    sums, counts = _sums_and_counts(np.asarray(values, dtype=float), groups)
    return sums / counts


def wilcoxon_p(differences: Sequence[float] | np.ndarray) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test of paired differences.

    Differences of zero are dropped, as Wilcoxon did. If all are zero there is nothing against equality: 1. None for
    fewer than two differences.
    """
    values = np.round(np.asarray(differences, dtype=float), DIGITS)
    if len(values) < 2:
        return None
    values = values[values != 0]
    return float(stats.wilcoxon(values).pvalue) if len(values) else 1.0


def holm(p_values: pd.Series) -> pd.Series:
    """p corrected for the number of comparisons (Holm, Scand. J. Statist. 6, 1979, 65-70). NaN stays NaN, uncounted.

    The i-th smallest of m is multiplied by m - i + 1; none becomes smaller than one before it, or larger than 1.
    """
    known = p_values.dropna().sort_values()
    corrected = (known * np.arange(len(known), 0, -1)).clip(upper=1.0).cummax()
    return corrected.reindex(p_values.index)


def smallest_p(units: int) -> float:
    """The smallest p that Wilcoxon's exact two-sided test can give for so many differences: all of one sign."""
    return min(1.0, 2.0 ** (1 - units))


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, groups: Sequence[Hashable] | None = None
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean; the same input gives the same interval.

    Args:
        values: one per case, finite.
        groups: the subject of each case. Whole subjects are drawn then, since cases of one subject are not independent.

    Returns:
        (low, high), or None for fewer than two cases (subjects).
    """
    array = np.asarray(values, dtype=float)
    sums, counts = _sums_and_counts(array, range(len(array)) if groups is None else groups)
    if len(sums) < 2:
        return None
    result = stats.bootstrap(
        (sums, counts),
        lambda s, c, axis: s.sum(axis=axis) / c.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=1000,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _sums_and_counts(values: np.ndarray, groups: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    order: dict[Hashable, int] = {}
    index = np.array([order.setdefault(group, len(order)) for group in groups], dtype=int)
    return np.bincount(index, weights=values, minlength=len(order)), np.bincount(index, minlength=len(order))
