"""evaluation.md: the table of an evaluation, with everything needed to understand it. Made from evaluation.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunet_ssl.evaluation import pages
from nnunet_ssl.evaluation.scoring.definitions import DISTANCES, METRICS, STATUSES, TITLES


def render(content: Mapping[str, Any]) -> str:
    """The whole page. ``content``: that of evaluation.json, with None where there is no value."""
    cases = content["cases"]
    exceptions = {
        title: [f"{row['case']} ({row['class']})" for row in cases if row["status"] == status]
        for status, title in (("missed", "Missed"), ("false_positive", "False positive"))
    }
    page = {"titles": TITLES, "tables": tables(content), "exceptions": exceptions}
    return pages.render("evaluation.md", **{**content, **page, "number_of_cases": len({row["case"] for row in cases})})


def tables(content: Mapping[str, Any]) -> str:
    """Mean and standard deviation per class with the counts, and below it the means over the ok cases."""
    classes, heads = content["classes"], [_head(metric, content) for metric in METRICS]
    rows = [
        [name, *(_pair(metric, **entry[metric]) for metric in METRICS), *(str(entry["counts"][s]) for s in STATUSES)]
        for name, entry in classes.items()
    ]
    rows.append(["**mean over classes**", *(_number(m, content["mean"][m]) for m in METRICS), *[""] * len(STATUSES)])
    ok = [
        [name, *(_number(metric, entry["ok"][metric]) for metric in METRICS), str(entry["counts"]["ok"])]
        for name, entry in classes.items()
    ]
    left_out = [name for name, entry in classes.items() if entry["dice"]["mean"] is None]
    worst = "with the worst value" if content.get("convention") is None else "as the convention says"
    parts = [
        f"Mean ± standard deviation over cases; missed and false-positive structures count {worst}:",
        _table(["class", *heads, *(status.replace("_", " ") for status in STATUSES)], rows),
        *([f"Without any value, and so not in the mean over classes: {', '.join(left_out)}."] if left_out else []),
        "Mean over the ok cases alone, which hides missed and false-positive structures:",
        _table(["class", *heads, "ok"], ok),
    ]
    return "\n\n".join(parts)


def _table(head: list[str], rows: list[list[str]]) -> str:
    return pages.markdown_table(head, rows, [True, *[False] * (len(head) - 1)])


def _head(metric: str, content: Mapping[str, Any]) -> str:
    if metric == "nsd":
        return f"NSD at {content['tolerance']:g} {content['unit']}"
    return f"{TITLES[metric]} [{content['unit']}]" if metric in DISTANCES else TITLES[metric]


def _number(metric: str, value: float | None) -> str:
    return "-" if value is None else f"{value:.{3 if metric in DISTANCES else 4}f}"


def _pair(metric: str, mean: float | None, std: float | None) -> str:
    return _number(metric, mean) + ("" if std is None else f" ± {_number(metric, std)}")
