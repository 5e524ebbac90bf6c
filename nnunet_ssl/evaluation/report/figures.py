"""The figures of one section, in the order in which they are read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from nnunet_ssl.evaluation.benchmark.jobs import COMPLETE
from nnunet_ssl.evaluation.report import class_figure, curve_figure, forest_figure, fraction_figure, overlay_figure
from nnunet_ssl.evaluation.report.aggregate import foreground
from nnunet_ssl.evaluation.report.content import FigureFile
from nnunet_ssl.evaluation.report.drawing import Style
from nnunet_ssl.evaluation.report.example_cases import choose_cases
from nnunet_ssl.evaluation.report.load import VALIDATION, Benchmark, Run
from nnunet_ssl.evaluation.report.overlay_figure import Panel
from nnunet_ssl.evaluation.report.quantities import QUANTITIES
from nnunet_ssl.evaluation.report.tables import Table
from nnunet_ssl.evaluation.report.text_tables import table_title
from nnunet_ssl.evaluation.report.training_logs import read_log
from nnunet_ssl.evaluation.report.volumes import read_volumes

FOLDER = "figures"


def make_overview(tables: Sequence[Table], looks: Mapping[str, Style]) -> list[FigureFile]:
    """Of the tables of one place: every trainer's difference to the control, one figure per split."""
    name = QUANTITIES[tables[0].metrics[0]].title
    figures = []
    for table, png in forest_figure.draw(tables, looks):
        caption = f"{name}: mean paired difference to the control, with its 95 % bootstrap interval."
        file = f"{FOLDER}/{_stem(*table.place, table.split)}_differences.png"
        figures.append(FigureFile(f"Differences to the control, {table_title(table)}", caption, file, png))
    return figures


def make_figures(
    benchmark: Benchmark,
    tables: Sequence[Table],
    control: str,
    looks: Mapping[str, Style],
    cases: Sequence[str] | None,
) -> tuple[list[FigureFile], list[str]]:
    """All figures of the tables of one place, and what could not be drawn and why.

    Args:
        looks: of every trainer of the benchmark.
        cases: shown as pictures; None: the control's median and worst one.
    """
    place = tables[0].place
    values = benchmark.values[(benchmark.values[list(place._fields)] == list(place)).all(axis=1)]
    runs = [
        run
        for run in benchmark.runs
        if run.state == COMPLETE and (run.dataset, run.configuration, run.plans) == place[:3]
    ]
    stem = _stem(*place)
    figures, notes = [], list[str]()

    def add(kind: str, title: str, caption: str, png: bytes | None) -> None:
        if png is not None:
            figures.append(FigureFile(title, caption, f"{FOLDER}/{stem}_{kind}.png", png))

    *first, last = (QUANTITIES[m].title for m in tables[0].metrics)
    names = f"{', '.join(first)} and {last}" if first else last
    caption = f"{names} against the number of labelled cases: mean over cases, 95 % bootstrap interval."
    add("labels", f"{names} against labelled cases", caption, fraction_figure.draw(tables, looks))
    for metric in tables[0].metrics:
        title = f"{QUANTITIES[metric].title} per class"
        caption = (
            f"{title}, trainers in the order of the tables. One value per case (mean over seeds), shown as a dot where "
            "there are few. The box shows median and quartiles, the whiskers reach to the last value within 1.5 times "
            "the height of the box."
        )
        add(f"classes_{metric}", title, caption, class_figure.draw(tables, values, metric, looks))
    if place.scope == VALIDATION:
        logs = [(run, *read_log(run)) for run in runs]
        notes += [f"No learning curve of {run.name}: {why}." for run, _, why in logs if why]
        png = curve_figure.draw([log[:2] for log in logs], [table.split for table in tables], looks)
        caption = (
            "Learning curves. Thin lines are single training runs, thick lines their means. nnU-Net looks at patches "
            "of the validation cases after every epoch; the reported numbers come from the final network, never from "
            "the best epoch."
        )
        add("curves", "Learning curves", caption, png)
    for case, why in choose_cases(values, control, cases).items():
        rows, problems = _panels(case, tables, values, runs)
        notes += problems
        if rows:
            labels = list(dict.fromkeys(values["label"]))
            caption = f"{case} ({why}): the slice with the largest area of the reference."
            kind = f"case_{_stem(case)}"
            add(kind, f"Case {case}", caption, overlay_figure.draw(case, rows, labels, looks))
    return figures, notes


def _stem(*parts: str) -> str:
    """As part of the name of a file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(parts))


def _panels(
    case: str, tables: Sequence[Table], values: pd.DataFrame, runs: Sequence[Run]
) -> tuple[list[tuple[str, dict[str, Panel]]], list[str]]:
    """Splits with a prediction of the case, each trainer's from its first fold and seed; and what is not there."""
    rows, problems = [], dict[str, None]()
    for table in tables:
        panels = {}
        for trainer in table.trainers:
            found = values[(values["case"] == case) & (values["trainer"] == trainer) & (values["split"] == table.split)]
            run = next((r for r in runs if r.name in set(found["job"])), None)
            if run is None:
                continue
            try:
                volumes = read_volumes(run, table.place.scope, case)
            except (OSError, ValueError, RuntimeError) as error:
                problems[f"No picture of {case} by {run.name}: {error}."] = None
                continue
            dice = foreground(found[found["job"] == run.name], "dice")
            panels[trainer] = Panel(volumes, float(dice.iloc[0]) if len(dice) else None)
        if panels:
            rows.append((table.split, panels))
    return rows, list(problems)
