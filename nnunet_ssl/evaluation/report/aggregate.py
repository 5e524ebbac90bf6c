"""From one value per case, class, fold and seed to the numbers of a table.

All functions take a Series indexed by (fold, seed, case), the evaluations of one trainer, without NaN. Their results
are columns of ``tables.NUMBERS``; undefined is None.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from nnunet_ssl.evaluation.report.statistics import bootstrap_interval, group_means, wilcoxon_p

EVALUATION = ["fold", "seed", "case"]
OK, MISSED, FALSE_POSITIVE = "ok", "missed", "false_positive"


def foreground(rows: pd.DataFrame, metric: str) -> pd.Series:
    """Mean over the classes that have a value, per evaluation. Evaluations without any are left out.

    Args:
        rows: of one trainer, with the columns fold, seed, case, class and the metric.
    """
    return rows.groupby(EVALUATION, sort=True)[metric].mean().dropna()


def per_case(values: pd.Series) -> pd.Series:
    """One value per case: the mean over seeds, then over folds where several predicted the case (a test set)."""
    return values.groupby(level=["fold", "case"]).mean().groupby(level="case").mean()


def spread(values: pd.Series) -> dict[str, float]:
    """Mean over cases, and sample standard deviations (n - 1): of the cases, of the means of folds and of seeds.

    Seeds are compared on the evaluations that all of them have.
    """
    cases = per_case(values)
    folds = values.groupby(level=["fold", "case"]).mean().groupby(level="fold").mean()
    by_seed = values.unstack("seed").dropna()
    seeds = pd.Series([per_case(pd.concat({s: by_seed[s]}, names=["seed"])).mean() for s in by_seed], dtype=float)
    deviations = {"std_cases": cases.std(), "std_folds": folds.std(), "std_seeds": seeds.std()}
    return {"mean": cases.mean(), **deviations, "cases": len(cases)}


def compare(method: pd.Series, control: pd.Series, subjects: Mapping[str, str]) -> dict[str, float | None]:
    """Method minus control on the evaluations that both have; empty if there is none.

    The units of the bootstrap interval and of Wilcoxon's test are subjects, or cases where no subjects are known.

    Args:
        subjects: case -> subject; a case that is not in it is a subject of its own.
    """
    both = pd.concat([method, control], axis=1, join="inner", keys=["method", "control"])
    if both.empty:
        return {}
    differences = per_case(both["method"] - both["control"])
    owners = owners_of(differences, subjects)
    units = group_means(differences.to_numpy(), owners)
    low, high = bootstrap_interval(differences.to_numpy(), owners) or (None, None)
    return {
        "difference": differences.mean(),
        "difference_low": low,
        "difference_high": high,
        "p": wilcoxon_p(units),
        "compared_cases": len(differences),
        "compared_units": len(units),
        "compared_evaluations": len(both),
    }


def mean_interval(values: pd.Series, subjects: Mapping[str, str]) -> dict[str, float | None]:
    """Bootstrap interval of the mean over cases."""
    cases = per_case(values)
    low, high = bootstrap_interval(cases.to_numpy(), owners_of(cases, subjects)) or (None, None)
    return {"mean_low": low, "mean_high": high}


def owners_of(cases: pd.Series, subjects: Mapping[str, str]) -> list[str]:
    """The subject of every case in the index."""
    return [subjects.get(case, f"case {case}") for case in cases.index]
