"""OUT/headroom: the curve as CSV, PNG and a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from nnunet_ssl.evaluation.pages import render
from nnunet_ssl.evaluation.report import fraction_figure
from nnunet_ssl.evaluation.report.assemble import section_title
from nnunet_ssl.evaluation.report.content import FigureFile, Part, Report, Section
from nnunet_ssl.evaluation.report.drawing import styles
from nnunet_ssl.evaluation.report.load import load_benchmark
from nnunet_ssl.evaluation.report.quantities import QUANTITIES
from nnunet_ssl.evaluation.report.subjects import read_subjects
from nnunet_ssl.evaluation.report.tables import make_tables
from nnunet_ssl.evaluation.report.text_tables import Column, Text, TextTable
from nnunet_ssl.headroom.curve import METRIC, conclusion, curve_of
from nnunet_ssl.system.whole_files import write_whole
from nnunet_ssl.trainers import CONTROL

FOLDER = "headroom"
NOTES = [
    "Intervals are 95 % bootstrap intervals over validation cases (subjects, where splits name them). They say nothing "
    "of how much another training run would differ: give more folds (-f) or seeds (--seeds) for that.",
    "Small networks and short training runs: a network trained at full length may gain more or less from labels.",
]


def write_page(output: str, unlabeled: int) -> str:
    """Write curve.csv, curve.png and index.html into OUT/headroom.

    Args:
        output: folder of a complete benchmark of the control on nested splits.
        unlabeled: number of images without labels of the dataset.

    Returns:
        What to say about it: the conclusion, and where the page is.
    """
    benchmark = load_benchmark(output)
    subjects = {name: read_subjects(name).groups for name in {run.dataset for run in benchmark.runs}}
    tables = make_tables(benchmark, (METRIC,), CONTROL, subjects)
    place = tables[0].place
    curve = curve_of(tables, subjects[place.dataset])
    sentence, target = conclusion(curve, unlabeled), Path(output, FOLDER)
    png = fraction_figure.draw(tables, styles([CONTROL], CONTROL))
    assert png is not None  # every record of this command's jobs says how many cases are labelled
    caption = "Mean Dice of the validation cases against the number of labelled cases, with its 95 % interval."
    section = Section(
        section_title(place),
        [Part(_table(curve), NOTES, [], [])],
        [FigureFile("Learning curve", caption, "curve.png", png)],
    )
    report = Report(
        "Headroom: what labels bring, and semi-supervised training can at most", [sentence], [section], [], []
    )
    target.mkdir(exist_ok=True)
    write_whole(target / "curve.png", png)
    write_whole(target / "curve.csv", curve.to_csv(index=False, lineterminator="\n").encode())
    write_whole(target / "index.html", render("report.html", report=report).encode())
    return f"{sentence}\nCurve: {target / 'index.html'}"


def _table(curve: pd.DataFrame) -> TextTable:
    columns = [Column("labelled cases"), Column("Dice", "95 % interval"), Column("gain", "over the row above")]
    columns += [Column("validation cases"), Column("training runs")]
    rows = [
        [
            Text(f"{row['labeled']:g}"),
            _with_interval(row, METRIC),
            _with_interval(row, "gain", signed=True),
            Text(f"{row['cases']:g}"),
            Text(f"{row['trainings']:g}"),
        ]
        for row in curve.to_dict("records")
    ]
    return TextTable("Learning curve", columns, rows, [False] * len(rows))


def _with_interval(row: dict[Any, Any], name: str, signed: bool = False) -> Text:
    value, low, high = (QUANTITIES[METRIC].text(row[name + end], signed) for end in ("", "_low", "_high"))
    return Text(value, "" if pd.isna(row[f"{name}_low"]) else f"[{low}, {high}]")
