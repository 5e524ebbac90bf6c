"""The numbers of a report: one table per dataset, configuration, plans, set of cases and split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from nnunet_ssl.evaluation.benchmark.jobs import COMPLETE
from nnunet_ssl.evaluation.report import aggregate
from nnunet_ssl.evaluation.report.load import Benchmark, Place, Run
from nnunet_ssl.evaluation.report.quantities import QUANTITIES
from nnunet_ssl.evaluation.report.statistics import holm

FOREGROUND = "mean"  # the "class" of the mean over the foreground classes
NUMBERS = [
    *(*Place._fields, "split", "labeled_min", "labeled_max", "withheld_min", "withheld_max"),
    *("trainer", "control", "class", "metric", "unit", "mean", "mean_low", "mean_high"),
    *("std_cases", "std_folds", "std_seeds", "mean_ok", "cases", "trainings"),
    *("difference", "difference_low", "difference_high", "p", "p_holm"),
    *("compared_cases", "compared_units", "compared_evaluations", "missed", "false_positives", "evaluations"),
    *("best_on_validation", "seconds_per_step", "time_ratio", "peak_memory_mb", "peak_gpu_memory_mb"),
]


@dataclass(frozen=True)
class Table:
    """Trainers that learned from the same labelled cases.

    Attributes:
        place, split: which table.
        runs: those of this table, finished or not.
        values: the rows of :class:`nnunet_ssl.evaluation.report.load.Benchmark` that it is made of.
        numbers: the columns NUMBERS, NaN where there is no value; one row per trainer (the control first), class
            (FOREGROUND first) and metric. Overlaps are fractions; ``p`` is Wilcoxon's, ``p_holm`` corrected for the
            number of methods and of the foreground only: classes are described, not tested.
        metrics, classes: in the order they are shown.
    """

    place: Place
    split: str
    runs: list[Run]
    values: pd.DataFrame
    numbers: pd.DataFrame
    metrics: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def done(self) -> list[Run]:
        return [run for run in self.runs if run.state == COMPLETE]

    @property
    def incomplete(self) -> list[str]:
        """Which training runs did not finish, and why."""
        return [run.problem for run in self.runs if run.state != COMPLETE]

    @property
    def trainers(self) -> list[str]:
        """In the order of the rows."""
        return list(dict.fromkeys(self.numbers["trainer"]))

    @property
    def chosen(self) -> list[str]:
        """Trainers whose checkpoint was chosen on the validation cases."""
        return list(dict.fromkeys(self.numbers.loc[self.numbers["best_on_validation"].eq(True), "trainer"]))

    @property
    def has_control(self) -> bool:
        return bool(self.numbers["control"].any())

    @property
    def labeled(self) -> tuple[int, int] | None:
        """Training cases with a label, lowest and highest number over folds; None where no record says."""
        return _range([run.labeled for run in self.done])

    @property
    def withheld(self) -> tuple[int, int] | None:
        """Training cases without label, alike."""
        return _range([run.withheld for run in self.done])

    @property
    def distance_unit(self) -> str:
        """mm or voxel."""
        return _distance_unit(self.done, self.place)

    def of_class(self, name: str) -> dict[str, dict[str, dict[str, Any]]]:
        """trainer -> metric -> row of ``numbers``."""
        rows: dict[str, dict[str, dict[str, Any]]] = {}
        for row in self.numbers[self.numbers["class"] == name].to_dict("records"):
            rows.setdefault(row["trainer"], {})[row["metric"]] = row
        return rows


def make_tables(
    benchmark: Benchmark, metrics: Sequence[str], control: str, subjects: Mapping[str, Mapping[str, str]]
) -> list[Table]:
    """All tables of a benchmark: by dataset, configuration, plans and set of cases, then by number of labelled cases.

    Args:
        metrics: columns of evaluation.csv.
        control: trainer with which the others are compared.
        subjects: dataset -> case -> subject.
    """
    tables = []
    for key, values in benchmark.values.groupby([*Place._fields, "split"]):
        *where, split = map(str, key)
        place = Place(*where)
        runs = [r for r in benchmark.runs if (r.dataset, r.configuration, r.plans, r.split) == (*where[:3], split)]
        numbers = _numbers(place, split, values, runs, metrics, control, subjects[place.dataset])
        classes = tuple(dict.fromkeys(values["class"]))
        tables.append(Table(place, split, runs, values, numbers, tuple(metrics), classes))
    return sorted(tables, key=lambda t: (t.place, t.labeled or (0, 0), t.split))


def tables_by_place(tables: Sequence[Table]) -> dict[Place, list[Table]]:
    """Tables that differ in the split alone, in their order."""
    result: dict[Place, list[Table]] = {}
    for table in tables:
        result.setdefault(table.place, []).append(table)
    return result


def _numbers(
    place: Place,
    split: str,
    values: pd.DataFrame,
    runs: list[Run],
    metrics: Sequence[str],
    control: str,
    subjects: Mapping[str, str],
) -> pd.DataFrame:
    done = [run for run in runs if run.state == COMPLETE]
    of = dict(iter(values.groupby("trainer")))
    rows = []
    for trainer in sorted(of, key=lambda name: (name != control, name)):
        others = of.get(control) if trainer != control else None
        costs = {"trainer": trainer, "control": trainer == control, **_costs(trainer, control, done)}
        costs["best_on_validation"] = any(run.is_best(place.scope) for run in done if run.trainer == trainer)
        rows += [costs | row for row in _scores(of[trainer], others, metrics, dict.fromkeys(values["class"]), subjects)]
    numbers = pd.DataFrame(rows, columns=NUMBERS)
    for name in ("labeled", "withheld"):
        numbers[f"{name}_min"], numbers[f"{name}_max"] = _range([getattr(run, name) for run in done]) or (None, None)
    unit = _distance_unit(done, place)
    numbers["unit"] = ["" if QUANTITIES[metric].overlap else unit for metric in numbers["metric"]]
    numbers["p_holm"] = numbers[numbers["class"] == FOREGROUND].groupby("metric")["p"].transform(holm)
    return numbers.assign(**place._asdict(), split=split)


def _scores(
    values: pd.DataFrame,
    of_control: pd.DataFrame | None,
    metrics: Sequence[str],
    classes: Mapping[str, None],
    subjects: Mapping[str, str],
) -> Iterator[dict[str, Any]]:
    """What one trainer reached, and the difference to the control: one row per class and metric."""
    for name in (FOREGROUND, *classes):
        mine = _of_class(values, name)
        statuses = mine["status"].value_counts()
        counts = {"missed": statuses.get(aggregate.MISSED, 0)}
        counts |= {"false_positives": statuses.get(aggregate.FALSE_POSITIVE, 0), "evaluations": len(mine)}
        for metric in metrics:
            own = aggregate.foreground(mine, metric)
            ok = aggregate.per_case(aggregate.foreground(mine[mine["status"] == aggregate.OK], metric))
            row = {"class": name, "metric": metric, **aggregate.spread(own), "mean_ok": ok.mean(), **counts}
            if name == FOREGROUND:
                row |= aggregate.mean_interval(own, subjects)
            if of_control is not None:
                others = aggregate.foreground(_of_class(of_control, name), metric)
                row |= aggregate.compare(own, others, subjects)
            yield row


def _costs(trainer: str, control: str, done: Sequence[Run]) -> dict[str, Any]:
    """Mean time per step, its ratio to the control's on the folds and seeds of both, and the highest memory."""
    runs = [run for run in done if run.trainer == trainer]
    mine, others = (
        pd.Series({(r.fold, r.seed): r.measured("seconds_per_step") for r in done if r.trainer == name}, dtype=float)
        for name in (trainer, control)
    )
    both = pd.concat([mine, others], axis=1, join="inner").dropna()
    memory = {
        key: max((mb for run in runs if (mb := run.measured(key)) is not None), default=None)
        for key in ("peak_memory_mb", "peak_gpu_memory_mb")
    }
    ratio = both[0].sum() / both[1].sum() if both[1].sum() else None
    return {"trainings": len(runs), "seconds_per_step": mine.mean(), "time_ratio": ratio, **memory}


def _of_class(values: pd.DataFrame, name: str) -> pd.DataFrame:
    return values if name == FOREGROUND else values[values["class"] == name]


def _distance_unit(done: Sequence[Run], place: Place) -> str:
    return next((str(unit) for run in done if (unit := run.evaluations.get(place.scope, {}).get("unit"))), "mm")


def _range(numbers: Sequence[int | None]) -> tuple[int, int] | None:
    known = [n for n in numbers if n is not None]
    return (min(known), max(known)) if known else None
