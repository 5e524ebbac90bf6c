"""Means over cases and classes, and how often a class was missed or a false positive."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from nnunet_ssl.evaluation.scoring.definitions import METRICS, STATUSES


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per class, in the order of the rows.

    Returns:
        {class: {metric: {"mean", "std"}, "ok": {metric: mean over the ok cases}, "counts": {status: cases}}}.
        NaN where there is no case to take a mean of, or only one for the standard deviation (n - 1).
    """
    return {name: _summary([r for r in rows if r["class"] == name]) for name in dict.fromkeys(r["class"] for r in rows)}


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    counts = Counter(row["status"] for row in rows)
    result: dict[str, Any] = {}
    for metric in METRICS:
        values = [row[metric] for row in rows if not math.isnan(row[metric])]
        result[metric] = {"mean": _mean(values), "std": statistics.stdev(values) if len(values) > 1 else math.nan}
    result["ok"] = {metric: _mean([row[metric] for row in rows if row["status"] == "ok"]) for metric in METRICS}
    result["counts"] = {status: counts[status] for status in STATUSES}
    return result


def mean_over_classes(classes: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Mean of the classes' means; a class without any value (no case has it, none was predicted) is left out."""
    means = {metric: [entry[metric]["mean"] for entry in classes.values()] for metric in METRICS}
    return {metric: _mean([v for v in values if not math.isnan(v)]) for metric, values in means.items()}


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan
