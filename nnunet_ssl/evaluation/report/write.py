"""Writes the report of a benchmark folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from nnunet_ssl.data.folders import existing_part, write_whole
from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.report import html, latex, markdown, records
from nnunet_ssl.evaluation.report.assemble import assemble
from nnunet_ssl.evaluation.report.drawing import styles
from nnunet_ssl.evaluation.report.figures import FOLDER
from nnunet_ssl.evaluation.report.load import Benchmark, load_benchmark
from nnunet_ssl.evaluation.report.published import PATH, read_published
from nnunet_ssl.evaluation.report.quantities import QUANTITIES
from nnunet_ssl.evaluation.report.subjects import read_subjects
from nnunet_ssl.evaluation.report.tables import make_tables
from nnunet_ssl.trainers import CONTROL

METRICS = ("dice", "hd95")


def write_report(
    folder: str,
    output: str | None = None,
    *,
    metrics: Sequence[str] = METRICS,
    cases: Sequence[str] | None = None,
    control: str = CONTROL,
    published: str | os.PathLike[str] = PATH,
) -> str:
    """Read a benchmark folder and write index.html, report.md, report.csv, report.tex and figures/*.png.

    Args:
        folder: what `nnunet_ssl benchmark -o` wrote. Jobs that are not complete are named, not waited for.
        output: folder to write into, made if need be; ``folder``/report by default.
        metrics: columns of evaluation.csv to show, the first of them first.
        cases: ids of the cases to show as pictures; by default the control's median and worst one.
        control: trainer with which all others are compared.
        published: file of the numbers that papers report.

    Returns:
        The output folder.

    Raises:
        SemiSupervisedError: no benchmark folder, unknown metrics or cases.
    """
    if unknown := [name for name in metrics if name not in QUANTITIES]:
        raise complain("Unknown metrics:", unknown, f"There are: {', '.join(QUANTITIES)}.")
    target = Path(output) if output is not None else Path(folder, "report")
    if not os.path.isdir(above := existing_part(str(target / FOLDER))):
        raise complain(f"The report cannot be written to {target}: {above} is no folder.")
    benchmark = load_benchmark(folder)
    _check_cases(benchmark, cases)
    if control not in {CONTROL, *_trainers(benchmark)}:
        raise complain(f"The benchmark has no trainer {control}.", _trainers(benchmark), "Choose one of these.")
    subjects = {dataset: read_subjects(dataset) for dataset in sorted({job.dataset for job in benchmark.jobs})}
    tables = make_tables(benchmark, tuple(dict.fromkeys(metrics)), control, subjects)
    looks = styles(_trainers(benchmark), control)
    report = assemble(benchmark, tables, read_published(Path(published)), control, looks, cases)
    contents: dict[str, bytes] = {f.file: f.png for section in report.sections for f in section.figures}
    contents["report.csv"] = records.to_frame(tables).to_csv(index=False, lineterminator="\n").encode(errors="replace")
    contents["report.md"] = markdown.render(report).encode(errors="replace")
    contents["report.tex"] = latex.render(report).encode(errors="replace")
    contents["index.html"] = html.render(report).encode(errors="replace")
    (target / FOLDER).mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_whole(str(target / name), content)
    return str(target)


def _trainers(benchmark: Benchmark) -> list[str]:
    """All that the benchmark has, finished or not, so that colours stay when one more finishes."""
    return sorted({job.trainer for job in benchmark.jobs})


def _check_cases(benchmark: Benchmark, cases: Sequence[str] | None) -> None:
    known = set(benchmark.values["case"])
    if unknown := [case for case in cases or () if case not in known]:
        examples = ", ".join(sorted(known)[:5]) or "none"
        raise complain("These cases were not evaluated:", unknown, f"The first of those that were: {examples}.")
