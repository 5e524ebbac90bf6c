"""From one value per case, class, fold and seed to the numbers of a table.

All functions take or give a Series indexed by (fold, seed, case), the evaluations of one trainer, without NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nnunet_ssl.evaluation.report.statistics import bootstrap_interval, group_means, wilcoxon_p

EVALUATION = ["fold", "seed", "case"]
OK, MISSED, FALSE_POSITIVE = "ok", "missed", "false_positive"


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviations (of a sample, n - 1), None where there are fewer than two values.

    Attributes:
        mean: over cases.
        over_cases: of the values per case.
        over_folds: of the means of the folds.
        over_seeds: of the means of the seeds, on the evaluations that all seeds have.
        cases: how many there are with a value.
    """

    mean: float | None
    over_cases: float | None
    over_folds: float | None
    over_seeds: float | None
    cases: int


@dataclass(frozen=True)
class Comparison:
    """Method minus control on the evaluations that both have.

    Attributes:
        difference: mean over cases.
        interval: bootstrap interval of it, None for fewer than two units.
        p: Wilcoxon's, uncorrected; None for fewer than two units.
        units: subjects, or cases where no subjects are known.
        cases, evaluations: that both have.
    """

    difference: float
    interval: tuple[float, float] | None
    p: float | None
    units: int
    cases: int
    evaluations: int


def foreground(rows: pd.DataFrame, metric: str) -> pd.Series:
    """Mean over the classes that have a value, per evaluation. Evaluations without any are left out.

    Args:
        rows: of one trainer, with the columns fold, seed, case, class and the metric.
    """
    return rows.groupby(EVALUATION, sort=True)[metric].mean().dropna()


def per_case(values: pd.Series) -> pd.Series:
    """One value per case: the mean over seeds, then over folds where several predicted the case (a test set)."""
    return values.groupby(level=["fold", "case"]).mean().groupby(level="case").mean()


def spread(values: pd.Series) -> Spread:
    """Mean over cases, and how much it varies between cases, folds and seeds."""
    cases = per_case(values)
    folds = values.groupby(level=["fold", "case"]).mean().groupby(level="fold").mean()
    by_seed = values.unstack("seed").dropna()
    seeds = pd.Series([per_case(_with_seed(by_seed[s], s)).mean() for s in by_seed], dtype=float).dropna()
    mean = float(cases.mean()) if len(cases) else None
    return Spread(mean, _std(cases), _std(folds), _std(seeds), len(cases))


def compare(method: pd.Series, control: pd.Series, subjects: Mapping[str, str]) -> Comparison | None:
    """Paired comparison; None if there is no evaluation that both have.

    Args:
        subjects: case -> subject; a case that is not in it is a subject of its own.
    """
    both = pd.concat([method, control], axis=1, join="inner", keys=["method", "control"])
    if both.empty:
        return None
    differences = per_case(both["method"] - both["control"])
    owners = owners_of(differences, subjects)
    units = group_means(differences.to_numpy(), owners)
    return Comparison(
        difference=float(differences.mean()),
        interval=bootstrap_interval(differences.to_numpy(), owners),
        p=wilcoxon_p(units),
        units=len(units),
        cases=len(differences),
        evaluations=len(both),
    )


def mean_interval(values: pd.Series, subjects: Mapping[str, str]) -> tuple[float, float] | None:
    """Bootstrap interval of the mean over cases."""
    cases = per_case(values)
    return bootstrap_interval(cases.to_numpy(), owners_of(cases, subjects))


def owners_of(cases: pd.Series, subjects: Mapping[str, str]) -> list[str]:
    """The subject of every case in the index."""
    return [subjects.get(case, f"case {case}") for case in cases.index]


def _with_seed(values: pd.Series, seed: int) -> pd.Series:
    return pd.concat({seed: values}, names=["seed"])


def _std(values: pd.Series) -> float | None:
    return float(np.std(values.to_numpy(), ddof=1)) if len(values) > 1 else None
