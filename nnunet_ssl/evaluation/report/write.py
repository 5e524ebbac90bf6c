"""Writes the report of a benchmark folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from nnunet_ssl.data.folders import existing_part
from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.pages import markdown_table, render
from nnunet_ssl.evaluation.report.assemble import assemble
from nnunet_ssl.evaluation.report.drawing import styles
from nnunet_ssl.evaluation.report.figures import FOLDER
from nnunet_ssl.evaluation.report.load import Benchmark, load_benchmark
from nnunet_ssl.evaluation.report.published import read_published
from nnunet_ssl.evaluation.report.quantities import QUANTITIES
from nnunet_ssl.evaluation.report.subjects import read_subjects
from nnunet_ssl.evaluation.report.tables import NUMBERS, make_tables
from nnunet_ssl.evaluation.report.text_tables import NUMBER, TextTable
from nnunet_ssl.system.whole_files import write_whole
from nnunet_ssl.trainers import CONTROL

METRICS = ("dice", "hd95")


def write_report(
    folder: str,
    output: str | None = None,
    *,
    metrics: Sequence[str] = METRICS,
    cases: Sequence[str] | None = None,
    control: str = CONTROL,
) -> str:
    """Read a benchmark folder and write index.html, report.md, report.csv, report.tex and figures/*.png.

    Args:
        folder: what `nnunet_ssl benchmark -o` wrote. Jobs that are not complete are named, not waited for.
        output: folder to write into, made if need be; ``folder``/report by default.
        metrics: columns of evaluation.csv to show, the first of them first.
        cases: ids of the cases to show as pictures; by default the control's median and worst one.
        control: trainer with which all others are compared.

    Returns:
        The output folder.

    Raises:
        SemiSupervisedError: no benchmark folder, unknown metrics or cases.
    """
    if unknown := [name for name in metrics if name not in QUANTITIES]:
        raise complain("Unknown metrics:", unknown, f"There are: {', '.join(QUANTITIES)}.")
    target = Path(output) if output is not None else Path(folder, "report")
    if not os.path.isdir(above := existing_part(str(target / FOLDER))):
        raise complain(f"The report cannot be written to {target}: {above} is not a folder.")
    benchmark = load_benchmark(folder)
    _check_cases(benchmark, cases)
    trainers = sorted({run.trainer for run in benchmark.runs})
    if control not in {CONTROL, *trainers}:
        raise complain(f"The benchmark has no trainer {control}.", trainers, "Choose one of these.")
    subjects = {dataset: read_subjects(dataset) for dataset in sorted({run.dataset for run in benchmark.runs})}
    groups = {dataset: found.groups for dataset, found in subjects.items()}
    tables = make_tables(benchmark, tuple(dict.fromkeys(metrics)), control, groups)
    looks = styles(trainers, control)  # of all, finished or not, so that colours stay when one more finishes
    report = assemble(benchmark, tables, read_published(), control, subjects, looks, cases)
    numbers = pd.concat([pd.DataFrame(columns=NUMBERS), *(table.numbers for table in tables)])
    texts = {
        "report.csv": numbers.to_csv(index=False, lineterminator="\n"),
        "report.md": render("report.md", report=report, markdown=to_markdown),
        "report.tex": render("report.tex", report=report),
        "index.html": render("report.html", report=report),
    }
    contents: dict[str, bytes] = {
        f.file: f.png for section in report.sections for f in (*section.overview, *section.figures)
    }
    contents |= {name: text.encode(errors="replace") for name, text in texts.items()}  # names of files may be no text
    (target / FOLDER).mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_whole(target / name, content)
    return str(target)


def to_markdown(table: TextTable) -> str:
    """The headings above groups of columns go into the columns."""
    head = [" ".join(filter(None, (c.group, c.title, c.detail and f"({c.detail})"))) for c in table.columns]
    texts = [[f"{cell.main} {cell.detail}".strip() for cell in row] for row in table.rows]
    cells = [
        [f"**{text}**" if cell.bold else text for text, cell in zip(*both, strict=True)]
        for both in zip(texts, table.rows, strict=True)
    ]
    return markdown_table(head, cells, [column.kind != NUMBER for column in table.columns])


def _check_cases(benchmark: Benchmark, cases: Sequence[str] | None) -> None:
    known = set(benchmark.values["case"])
    if unknown := [case for case in cases or () if case not in known]:
        examples = ", ".join(sorted(known)[:5]) or "none"
        raise complain("These cases were not evaluated:", unknown, f"The first of those that were: {examples}.")
