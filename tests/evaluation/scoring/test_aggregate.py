from __future__ import annotations

import math
import warnings

import pytest

from nnunet_ssl.evaluation.scoring.aggregate import mean_over_classes, summarize
from nnunet_ssl.evaluation.scoring.definitions import METRICS


def row(name: str, status: str, value: float) -> dict:
    return {"case": "x", "class": name, "status": status, **dict.fromkeys(METRICS, value)}


def test_means_and_counts_by_hand():
    rows = [row("a", "ok", 0.8), row("a", "ok", 0.6), row("a", "missed", 0.0), row("a", "true_negative", math.nan)]
    entry = summarize(rows)["a"]
    mean = 1.4 / 3
    std = math.sqrt((0.8**2 + 0.6**2 - 3 * mean**2) / 2)  # n - 1
    assert entry["dice"] == pytest.approx({"mean": mean, "std": std})
    assert entry["ok"]["dice"] == pytest.approx(0.7)
    assert entry["counts"] == {"ok": 2, "missed": 1, "false_positive": 0, "true_negative": 1}


def test_false_positives_count_in_the_mean_and_not_in_the_ok_mean():
    entry = summarize([row("a", "ok", 2.0), row("a", "false_positive", 10.0)])["a"]
    assert (entry["hd95"]["mean"], entry["ok"]["hd95"]) == (6.0, 2.0)


def test_a_class_without_values_is_nan_without_a_warning_and_not_in_the_mean():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classes = summarize([row("a", "ok", 0.5), row("b", "true_negative", math.nan), row("c", "ok", 0.7)])
        mean = mean_over_classes(classes)
    assert [*classes] == ["a", "b", "c"]
    assert math.isnan(classes["b"]["nsd"]["mean"])
    assert math.isnan(classes["b"]["ok"]["nsd"])
    assert classes["b"]["counts"]["true_negative"] == 1
    assert mean == pytest.approx(dict.fromkeys(METRICS, 0.6))


def test_one_case_has_no_standard_deviation_and_no_case_no_mean():
    classes = summarize([row("a", "ok", 0.5)])
    assert classes["a"]["asd"]["mean"] == 0.5
    assert math.isnan(classes["a"]["asd"]["std"])
    nothing = summarize([row("a", "true_negative", math.nan)])
    assert all(math.isnan(value) for value in mean_over_classes(nothing).values())
