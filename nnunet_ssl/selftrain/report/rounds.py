"""The table of rounds as numbers: each beside the control that was trained on the labelled cases alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from nnunet_ssl.evaluation.report.aggregate import compare, foreground, spread
from nnunet_ssl.selftrain.board import kept_of
from nnunet_ssl.selftrain.keys import Keys
from nnunet_ssl.selftrain.report.values import Result, seconds_until, trainings_until
from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.steps import CONTROL
from nnunet_ssl.selftrain.warnings import warnings

METRICS = ("dice", "hd95")
LONG = "control, as long"
COMPARED = ("difference", "difference_low", "difference_high", "p")  # with round 0


def rounds_table(run: Run, keys: Keys, results: Sequence[Result], subjects: Mapping[str, str]) -> pd.DataFrame:
    """One row per round with a result, and one for the long control.

    Columns: row (name), round, kept, pool, models, epochs, trainings, hours (all in all so far), and per metric m: m
    (mean over the validation cases, of the model that all rounds have: same seed, same fold), m_std, m_models (mean
    over all models of the round), m_difference with _low and _high (bootstrap interval) and _p (Wilcoxon) to round 0;
    and warnings.

    Args:
        subjects: case -> subject, for the intervals; may be empty.
    """
    rows = []
    main = {key(r): r for r in results if r.step.member in (None, run.main_member)}
    for name in dict.fromkeys(key(r) for r in results):
        if name not in main:
            continue  # only other seeds of this round are done
        result, models = main[name], [r for r in results if key(r) == name]
        step = result.step
        row: dict[str, Any] = {"row": name, "round": step.round, "epochs": step.epochs, "models": len(models)}
        if step.kind == CONTROL:
            row |= {"kept": None, "pool": None, "trainings": 1, "hours": result.record.seconds / 3600}
        else:
            kept, pool = kept_of(run, step.round) if step.round else (0, 0)
            row |= {"kept": kept, "pool": pool, "trainings": trainings_until(run, keys, step.round)}
            row["hours"] = seconds_until(run, keys, step.round) / 3600
        for metric in METRICS:
            row |= _of_metric(metric, result, models, main.get(round_name(0)), subjects)
        rows.append({**row, "warnings": " ".join(warnings(run.settings))})
    return pd.DataFrame(rows)


def _of_metric(
    metric: str, result: Result, models: Sequence[Result], first: Result | None, subjects: Mapping[str, str]
) -> dict[str, Any]:
    values = foreground(result.rows, metric)
    means = spread(values)
    row: dict[str, Any] = {
        metric: means["mean"],
        f"{metric}_std": means["std_cases"],
        f"{metric}_models": sum(spread(foreground(m.rows, metric))["mean"] for m in models) / len(models),
    }
    if first is not None and result is not first:
        found = compare(values, foreground(first.rows, metric), subjects)
        row |= {f"{metric}_{name}": found.get(name) for name in COMPARED}
    return row


def key(result: Result) -> str:
    """Name of the row."""
    return LONG if result.step.kind == CONTROL else round_name(result.step.round)


def round_name(number: int) -> str:
    """Round 0 is the control."""
    return "0, the control" if number == 0 else str(number)
