"""The numbers of a report: one table per dataset, configuration, plans, set of cases and split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from nnunet_ssl.evaluation.benchmark.jobs import COMPLETE
from nnunet_ssl.evaluation.report import aggregate
from nnunet_ssl.evaluation.report.aggregate import Comparison, Spread
from nnunet_ssl.evaluation.report.load import Benchmark, Job, Place
from nnunet_ssl.evaluation.report.notes import notes_of
from nnunet_ssl.evaluation.report.statistics import holm

FOREGROUND = "mean"  # the "class" of the mean over the foreground classes


@dataclass(frozen=True)
class Cell:
    """One metric of one trainer on one class or on the foreground.

    Attributes:
        spread: over all evaluations of this trainer.
        ok_mean: mean over cases of what is neither missed nor a false positive.
        comparison: with the control; None for the control and where it is absent.
        p: Wilcoxon's p, corrected for the number of methods in the table (Holm); of the foreground only.
        interval: bootstrap interval of the mean; of the foreground only.
    """

    spread: Spread
    ok_mean: float | None
    comparison: Comparison | None = None
    p: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Row:
    """One trainer.

    Attributes:
        trainer: full name.
        control: whether it is the one the others are compared with.
        cells: (class, metric) -> cell; the class is "mean" for the foreground.
        missed, false_positives: class -> how often, over all evaluations; "mean" holds the sums.
        evaluated: class -> number of evaluations.
        jobs: complete ones.
        seconds_per_step: mean over jobs; time_ratio: to the control's, on the folds and seeds of both.
        memory_mb, gpu_memory_mb: highest over jobs.
    """

    trainer: str
    control: bool
    cells: dict[tuple[str, str], Cell]
    missed: dict[str, int]
    false_positives: dict[str, int]
    evaluated: dict[str, int]
    jobs: int
    seconds_per_step: float | None
    time_ratio: float | None
    memory_mb: float | None
    gpu_memory_mb: float | None


@dataclass(frozen=True)
class Table:
    """Trainers that learned from the same labelled cases.

    Attributes:
        place, split: which table.
        labeled, withheld: training cases with and without label, lowest and highest number over folds.
        distance_unit: mm or voxel.
        metrics, classes: in the order they are shown.
        rows: the control first.
        notes: what a reader must know, as sentences.
        incomplete: "job: reason" of the jobs that did not finish.
    """

    place: Place
    split: str
    labeled: tuple[int, int] | None
    withheld: tuple[int, int] | None
    distance_unit: str
    metrics: tuple[str, ...]
    classes: tuple[str, ...]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)


def make_tables(
    benchmark: Benchmark,
    metrics: Sequence[str],
    control: str,
    subjects: Mapping[str, tuple[dict[str, str], str]],
) -> list[Table]:
    """All tables of a benchmark: by dataset, configuration, plans and set of cases, then by number of labelled cases.

    Args:
        metrics: columns of evaluation.csv.
        control: trainer with which the others are compared.
        subjects: dataset -> see :func:`nnunet_ssl.evaluation.report.subjects.read_subjects`.
    """
    tables = []
    for key, rows in benchmark.values.groupby([*Place._fields, "split"]):
        *where, split = map(str, key)
        place = Place(*where)
        jobs = [j for j in benchmark.jobs if (j.dataset, j.configuration, j.plans, j.split) == (*where[:3], split)]
        tables.append(_make_table(place, split, rows, jobs, tuple(metrics), control, subjects[place.dataset]))
    return sorted(tables, key=lambda t: (t.place, t.labeled or (0, 0), t.split))


def tables_by_place(tables: Sequence[Table]) -> dict[Place, list[Table]]:
    """Tables that differ in the split alone, in their order."""
    result: dict[Place, list[Table]] = {}
    for table in tables:
        result.setdefault(table.place, []).append(table)
    return result


def _make_table(
    place: Place,
    split: str,
    values: pd.DataFrame,
    jobs: list[Job],
    metrics: tuple[str, ...],
    control: str,
    subjects: tuple[dict[str, str], str],
) -> Table:
    classes = tuple(dict.fromkeys(values["class"]))
    done = [job for job in jobs if job.state == COMPLETE]
    trainers = sorted(set(values["trainer"]), key=lambda name: (name != control, name))
    of = {name: values[values["trainer"] == name] for name in trainers}
    rows = [
        _make_row(name, control, of[name], of.get(control), done, metrics, classes, subjects[0]) for name in trainers
    ]
    rows = _correct(rows)
    units = [str(u) for job in done if (u := job.evaluations.get(place.scope, {}).get("unit"))]
    table = Table(
        place,
        split,
        _range([job.labeled for job in done]),
        _range([job.withheld for job in done]),
        units[0] if units else "mm",
        metrics,
        classes,
        rows,
        incomplete=[f"{job.name}: {job.state}, {job.reason}" for job in jobs if job.state != COMPLETE],
    )
    return replace(table, notes=notes_of(table, values, done, control, subjects))


def _make_row(
    trainer: str,
    control: str,
    values: pd.DataFrame,
    of_control: pd.DataFrame | None,
    jobs: list[Job],
    metrics: tuple[str, ...],
    classes: tuple[str, ...],
    subjects: dict[str, str],
) -> Row:
    cells = {}
    for name in (FOREGROUND, *classes):
        mine = _of_class(values, name)
        for metric in metrics:
            own = aggregate.foreground(mine, metric)
            ok = aggregate.foreground(mine[mine["status"] == aggregate.OK], metric)
            comparison = None
            if trainer != control and of_control is not None:
                others = aggregate.foreground(_of_class(of_control, name), metric)
                comparison = aggregate.compare(own, others, subjects)
            interval = aggregate.mean_interval(own, subjects) if name == FOREGROUND else None
            cells[name, metric] = Cell(aggregate.spread(own), aggregate.spread(ok).mean, comparison, None, interval)
    counts = {
        status: {name: int((_of_class(values, name)["status"] == status).sum()) for name in (FOREGROUND, *classes)}
        for status in (aggregate.MISSED, aggregate.FALSE_POSITIVE)
    }
    own_jobs = [job for job in jobs if job.trainer == trainer]
    seconds = _measured(own_jobs, "seconds_per_step")
    return Row(
        trainer=trainer,
        control=trainer == control,
        cells=cells,
        missed=counts[aggregate.MISSED],
        false_positives=counts[aggregate.FALSE_POSITIVE],
        evaluated={name: len(_of_class(values, name)) for name in (FOREGROUND, *classes)},
        jobs=len(own_jobs),
        seconds_per_step=sum(seconds) / len(seconds) if seconds else None,
        time_ratio=_time_ratio(own_jobs, [job for job in jobs if job.trainer == control]),
        memory_mb=max(_measured(own_jobs, "peak_memory_mb"), default=None),
        gpu_memory_mb=max(_measured(own_jobs, "peak_gpu_memory_mb"), default=None),
    )


def _correct(rows: list[Row]) -> list[Row]:
    """Holm over the methods of the table, for each metric of the foreground. Classes are described, not tested."""
    for key in [key for key in rows[0].cells if key[0] == FOREGROUND]:
        p_values = [comparison.p if (comparison := row.cells[key].comparison) else None for row in rows]
        for row, p in zip(rows, holm(p_values), strict=True):
            row.cells[key] = replace(row.cells[key], p=p)
    return rows


def _of_class(values: pd.DataFrame, name: str) -> pd.DataFrame:
    return values if name == FOREGROUND else values[values["class"] == name]


def _measured(jobs: list[Job], key: str) -> list[float]:
    return [value for job in jobs if (value := job.measured(key)) is not None]


def _time_ratio(jobs: list[Job], of_control: list[Job]) -> float | None:
    """Mean time per step over the control's, on folds and seeds that both have."""
    mine, others = (
        {(j.fold, j.seed): s for j in some if (s := j.measured("seconds_per_step")) is not None}
        for some in (jobs, of_control)
    )
    both = mine.keys() & others.keys()
    total = sum(others[key] for key in both)
    return sum(mine[key] for key in both) / total if total else None


def _range(numbers: list[int | None]) -> tuple[int, int] | None:
    known = [n for n in numbers if n is not None]
    return (min(known), max(known)) if known else None
