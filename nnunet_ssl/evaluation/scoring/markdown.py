"""evaluation.md: the table of an evaluation, with everything needed to understand it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nnunet_ssl.evaluation.scoring.definitions import DISTANCES, METRICS, STATUSES, TITLES, definitions

if TYPE_CHECKING:
    from nnunet_ssl.evaluation.scoring.results import Evaluation

OF_PAPERS = (
    "Distances are in **voxels** (unit spacing), the convention of many tables of papers on semi-supervised "
    "segmentation. They are comparable with such tables only, not with millimetres."
)


def render(evaluation: Evaluation, versions: Mapping[str, str]) -> str:
    """The whole page."""
    cases = len({row["case"] for row in evaluation.rows})
    explained = definitions(evaluation.unit, evaluation.tolerance)
    lines = [
        "# Evaluation by nnunet_ssl, semi-supervised training for nnU-Net v2",
        "",
        f"{cases} case{'s' if cases != 1 else ''}, prediction against reference:",
        "",
        f"- prediction: `{evaluation.prediction}`",
        f"- reference: `{evaluation.reference}`",
        "",
        *([OF_PAPERS, ""] if evaluation.unit == "voxel" else []),
        *tables(evaluation),
        "",
        *_exceptions(evaluation),
        *[line for note in evaluation.notes for line in (f"NOTE: {note}", "")],
        "## Definitions",
        "",
        *(f"- {TITLES.get(name, name.replace('_', ' '))}: {text}" for name, text in explained.items()),
        "",
        "Versions: " + ", ".join(f"{name} {number}" for name, number in versions.items()),
    ]
    return "\n".join(lines) + "\n"


def tables(evaluation: Evaluation) -> list[str]:
    """Mean and standard deviation per class with the counts, and beside it the means over the ok cases."""
    heads = [_head(metric, evaluation) for metric in METRICS]
    rows = [
        [name, *(_pair(**entry[metric], digits=_digits(metric)) for metric in METRICS)]
        + [str(entry["counts"][status]) for status in STATUSES]
        for name, entry in evaluation.classes.items()
    ]
    left_out = [n for n, entry in evaluation.classes.items() if math.isnan(entry["dice"]["mean"])]
    rows.append(["**mean over classes**", *(_number(evaluation.mean[m], _digits(m)) for m in METRICS), *[""] * 4])
    ok = [
        [name, *(_number(entry["ok"][m], _digits(m)) for m in METRICS), str(entry["counts"]["ok"])]
        for name, entry in evaluation.classes.items()
    ]
    lines = ["Mean ± standard deviation over cases; missed and false structures count with the worst value:", ""]
    lines += _table(["class", *heads, *(status.replace("_", " ") for status in STATUSES)], rows)
    if left_out:
        lines += ["", f"Without any value, and so not in the mean over classes: {', '.join(left_out)}."]
    lines += ["", "Mean over the ok cases alone, which hides what was missed or made up:", ""]
    return lines + _table(["class", *heads, "ok"], ok)


def _head(metric: str, evaluation: Evaluation) -> str:
    if metric == "nsd":
        return f"NSD at {evaluation.tolerance:g} {evaluation.unit}"
    return f"{TITLES[metric]} [{evaluation.unit}]" if metric in DISTANCES else TITLES[metric]


def _exceptions(evaluation: Evaluation) -> list[str]:
    """Which cases missed or made up which class."""
    lines = []
    for status in ("missed", "false_positive"):
        found = [f"{row['case']} ({row['class']})" for row in evaluation.rows if row["status"] == status]
        if found:
            lines += [f"{status.replace('_', ' ').capitalize()}: {', '.join(found)}", ""]
    return lines


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    body = [[cell.replace("|", "\\|") for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in body) for i in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in body]
    rule = "|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths)) + "|"
    return [lines[0], rule, *lines[1:]]


def _digits(metric: str) -> int:
    return 3 if metric in DISTANCES else 4


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _pair(mean: float, std: float, digits: int) -> str:
    return _number(mean, digits) + ("" if math.isnan(std) else f" ± {_number(std, digits)}")
