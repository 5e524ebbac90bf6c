"""Every number of the report as CSV: one row per table, trainer, class and metric, in the units of evaluation.csv."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from nnunet_ssl.evaluation.report.quantities import QUANTITIES
from nnunet_ssl.evaluation.report.tables import Table

TABLE = ["dataset", "configuration", "plans", "scope", "split", "labeled_min", "labeled_max", "withheld_min"]
TABLE += ["withheld_max"]
VALUE = ["trainer", "control", "class", "metric", "unit", "mean", "mean_low", "mean_high", "std_cases", "std_folds"]
VALUE += ["std_seeds", "mean_ok", "cases", "trainings"]
COMPARED = ["difference", "difference_low", "difference_high", "p", "p_holm", "compared_cases", "compared_units"]
COMPARED += ["compared_evaluations"]
COSTS = ["missed", "false_positives", "evaluations", "seconds_per_step", "time_ratio", "peak_memory_mb"]
COSTS += ["peak_gpu_memory_mb"]
COLUMNS = [*TABLE, *VALUE, *COMPARED, *COSTS]


def to_frame(tables: Sequence[Table]) -> pd.DataFrame:
    """Overlaps as fractions, not percent; distances in ``unit``. Empty where there is no value."""
    return pd.DataFrame([row for table in tables for row in _rows(table)], columns=COLUMNS)


def _rows(table: Table) -> list[dict[str, object]]:
    labeled, withheld = table.labeled or (None, None), table.withheld or (None, None)
    what = {**table.place._asdict(), "split": table.split, "labeled_min": labeled[0], "labeled_max": labeled[1]}
    what |= {"withheld_min": withheld[0], "withheld_max": withheld[1]}
    rows = []
    for row in table.rows:
        whole = {"trainer": row.trainer, "control": row.control, "trainings": row.jobs}
        whole |= {"seconds_per_step": row.seconds_per_step, "time_ratio": row.time_ratio}
        whole |= {"peak_memory_mb": row.memory_mb, "peak_gpu_memory_mb": row.gpu_memory_mb}
        for (name, metric), cell in row.cells.items():
            spread, comparison = cell.spread, cell.comparison
            numbers: dict[str, object] = {
                "class": name,
                "metric": metric,
                "unit": "" if QUANTITIES[metric].overlap else table.distance_unit,
                "mean": spread.mean,
                "mean_low": (cell.interval or (None, None))[0],
                "mean_high": (cell.interval or (None, None))[1],
                "std_cases": spread.over_cases,
                "std_folds": spread.over_folds,
                "std_seeds": spread.over_seeds,
                "mean_ok": cell.ok_mean,
                "cases": spread.cases,
                "missed": row.missed[name],
                "false_positives": row.false_positives[name],
                "evaluations": row.evaluated[name],
                "p_holm": cell.p,
            }
            if comparison is not None:
                low, high = comparison.interval or (None, None)
                numbers |= {"difference": comparison.difference, "difference_low": low, "difference_high": high}
                numbers |= {"p": comparison.p, "compared_cases": comparison.cases, "compared_units": comparison.units}
                numbers |= {"compared_evaluations": comparison.evaluations}
            rows.append({**what, **whole, **numbers})
    return rows
