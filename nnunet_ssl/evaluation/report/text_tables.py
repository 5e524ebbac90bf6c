"""Tables as text in cells, the same for Markdown, LaTeX and HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

from nnunet_ssl.evaluation.report.published import Published
from nnunet_ssl.evaluation.report.quantities import MISSING, QUANTITIES, number, short_name
from nnunet_ssl.evaluation.report.statistics import ALPHA
from nnunet_ssl.evaluation.report.tables import FOREGROUND, Table

SHORTEST_P = 0.001
BEST = "best on validation"  # its checkpoint
NUMBER, TEXT, REMARK = "number", "text", "remark"  # kinds of columns; a remark is a sentence

Numbers = Mapping[str, Any]  # a row of Table.numbers
Row = Mapping[str, Numbers]  # metric -> numbers, of one trainer and class


@dataclass(frozen=True)
class Text:
    """One cell: what is read first, and a detail for small print."""

    main: str
    detail: str = ""
    bold: bool = False


@dataclass(frozen=True)
class Column:
    """A heading with its detail, and one for all neighbouring columns of the same group; what fills it from a row."""

    title: str
    detail: str = ""
    group: str = ""
    kind: str = NUMBER
    cell: Callable[[Row], Text] = lambda row: Text("")


@dataclass(frozen=True)
class TextTable:
    """Cells under headings. ``control``: whether a row stands for the control."""

    title: str
    columns: Sequence[Column]
    rows: list[list[Text]]
    control: list[bool]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Headings above neighbouring columns, and how many these are; empty if no column has any."""
        found = [(title, len([*columns])) for title, columns in groupby(column.group for column in self.columns)]
        return found if any(title for title, _ in found) else []


def main_table(table: Table) -> TextTable:
    """What a reader looks at first: means, differences to the control, misses and costs."""
    gpu = [("GPU memory", "peak_gpu_memory_mb")] if table.numbers["peak_gpu_memory_mb"].notna().any() else []
    ratio = "\u00d7 control" if table.has_control else ""
    time = Column("s per step", ratio, "cost", cell=_shown("seconds_per_step", "{:.3g}", "time_ratio", "\u00d7 {:.2f}"))
    memory = [
        Column(title, "GB", "cost", cell=_shown(key, "{:.1f}", scale=1 / 1024))
        for title, key in [("memory", "peak_memory_mb"), *gpu]
    ]
    columns = [TRAINER, *_of_metrics(table, tested=True), *STRUCTURES, time, *memory, Column("cases", cell=_cases)]
    return _fill(table_title(table), columns, table.of_class(FOREGROUND).values())


def table_title(table: Table) -> str:
    """The split with its numbers of cases."""
    if table.labeled is None or table.withheld is None:
        return f"Split {table.split}"
    return f"Split {table.split}: {_span(table.labeled)} labelled cases, labels of {_span(table.withheld)} withheld"


def spread_table(table: Table) -> TextTable:
    """How much the means vary, what they are without empty masks, and p before correction."""

    def value(key: str) -> Callable[[Row], Text]:
        return lambda row: Text(QUANTITIES[_any(row)["metric"]].text(_any(row)[key]))

    columns = [
        TRAINER,
        Column("metric", kind=TEXT, cell=lambda row: Text(_heading(_any(row)["metric"], table))),
        Column("mean", cell=value("mean")),
        *(Column("std", f"over {what}", cell=value(f"std_{what}")) for what in ("cases", "folds", "seeds")),
        Column("mean", "ok only", cell=value("mean_ok")),
        Column("p", "uncorrected", cell=lambda row: Text(p_text(_any(row)["p"]))),
        Column("compared", "cases", cell=_shown("compared_cases")),
        Column("cases", cell=_shown("cases")),
        Column("training runs", cell=_shown("trainings")),
    ]
    rows = [{metric: row[metric]} for row in table.of_class(FOREGROUND).values() for metric in table.metrics]
    return _fill("Spread, mean without empty masks", columns, rows)


def class_table(table: Table) -> TextTable:
    """Every class by itself; described with intervals, not tested."""
    name = Column("class", kind=TEXT, cell=lambda row: Text(_any(row)["class"]))
    cases = Column("cases", "with a value", cell=_shown("cases"))
    rows = [row for name in table.classes for row in table.of_class(name).values()]
    return _fill("Per class", [name, TRAINER, *_of_metrics(table, tested=False), *STRUCTURES, cases], rows)


def published_table(table: Table, published: Published) -> TextTable | None:
    """Our numbers and the reported ones, one row per paper, method and class; None where nothing fits."""
    if published.rows.empty:
        return None
    metrics = [m for m in table.metrics if m in set(published.rows["metric"])]
    columns = [Column(title, kind=TEXT) for title in ("source", "method", "labelled", "class")]
    columns += [*(Column(QUANTITIES[m].title) for m in metrics), Column("comparable?", kind=REMARK)]
    rows, control = [], []
    for row in table.of_class(FOREGROUND).values():
        means = [f"{QUANTITIES[m].text(row[m]['mean'])} {QUANTITIES[m].unit(table.distance_unit)}" for m in metrics]
        what = ["this benchmark", _name(row), _span(table.labeled or (0, 0)), FOREGROUND]
        rows.append([*map(Text, [*what, *means, ""])])
        control.append(bool(_any(row)["control"]))
    keys = ["paper", "method", "labeled", "total", "class"]
    for (paper, method, labeled, total, name), found in published.rows.groupby(keys, sort=False):
        labels = number(labeled, 0) + (f" of {number(total, 0)}" if total == total else "")
        values = found.assign(text=[f"{v:g} {u}" for v, u in zip(found["value"], found["unit"], strict=True)])
        texts = values.groupby("metric")["text"].agg(", ".join)
        caveats = _together((reason for caveat in found["caveat"] for reason in caveat.split("; ")), "; ")
        verdict = f"not directly: {caveats}" if caveats else f"same protocol ({published.protocol})"
        cells = [Text(paper, _together(found["source"], ", ")), *map(Text, (method, labels, name))]
        cells += [Text(texts.get(metric, MISSING)) for metric in metrics]
        rows.append([*cells, Text(verdict, _together(found["note"], "; "))])
        control.append(False)
    title = "Reported by papers" + (", not directly comparable" if all(published.rows["caveat"]) else "")
    return TextTable(title, columns, rows, control)


def p_text(p: float) -> str:
    """Three decimals; a dash where there is no test."""
    if pd.isna(p):
        return MISSING
    return f"<{SHORTEST_P}" if p < SHORTEST_P else f"{p:.3f}"


def _fill(title: str, columns: Sequence[Column], rows: Iterable[Row]) -> TextTable:
    filled = [(bool(_any(row)["control"]), [column.cell(row) for column in columns]) for row in rows]
    return TextTable(title, columns, [cells for _, cells in filled], [control for control, _ in filled])


def _of_metrics(table: Table, tested: bool) -> Iterator[Column]:
    kinds = [("mean", "\u00b1 std", _mean)]
    kinds += [("difference", "95 % interval", _difference)] if table.has_control else []
    kinds += [("p", "Holm", _p)] if table.has_control and tested else []
    for metric in table.metrics:
        for title, detail, cell in kinds:
            yield Column(title, detail, _heading(metric, table), cell=lambda row, m=metric, c=cell: c(row[m]))  # type: ignore[misc]


def _heading(metric: str, table: Table) -> str:
    return f"{QUANTITIES[metric].title}, {QUANTITIES[metric].unit(table.distance_unit)}"


def _any(row: Row) -> Numbers:
    """What does not depend on the metric."""
    return next(iter(row.values()))


def _name(row: Row) -> str:
    return short_name(_any(row)["trainer"]) + (" (control)" if _any(row)["control"] else "")


def _trainer(row: Row) -> Text:
    return Text(_name(row), BEST if _any(row)["best_on_validation"] is True else "")


def _mean(numbers: Numbers) -> Text:
    quantity, std = QUANTITIES[numbers["metric"]], numbers["std_cases"]
    return Text(quantity.text(numbers["mean"]), "" if pd.isna(std) else f"\u00b1 {quantity.text(std)}")


def _difference(numbers: Numbers) -> Text:
    difference, low, high = (
        QUANTITIES[numbers["metric"]].text(numbers[key], signed=True)
        for key in ("difference", "difference_low", "difference_high")
    )
    return Text(difference, "" if low == MISSING else f"[{low}, {high}]", bold=numbers["p_holm"] < ALPHA)


def _p(numbers: Numbers) -> Text:
    if not numbers["p_holm"] < ALPHA:
        return Text(p_text(numbers["p_holm"]))
    better = (numbers["difference"] > 0) == QUANTITIES[numbers["metric"]].overlap
    return Text(p_text(numbers["p_holm"]), "better" if better else "worse", bold=True)


def _shown(key: str, form: str = "{:.0f}", detail: str = "", detail_form: str = "", scale: float = 1) -> Any:
    """Fills a column with a number that does not depend on the metric; another one may be the detail."""

    def cell(row: Row) -> Text:
        value, more = _any(row)[key], _any(row).get(detail)
        return Text(
            MISSING if pd.isna(value) else form.format(value * scale), "" if pd.isna(more) else detail_form.format(more)
        )

    return cell


def _cases(row: Row) -> Text:
    runs = _any(row)["trainings"]
    cases = max(numbers["cases"] for numbers in row.values())
    return Text(str(cases), f"{runs} training run{'s' if runs != 1 else ''}")


def _span(low_high: tuple[int, int]) -> str:
    low, high = low_high
    return str(low) if low == high else f"{low} to {high}"


def _together(texts: Iterable[str], separator: str) -> str:
    """Each once, without empty ones."""
    return separator.join(dict.fromkeys(text for text in texts if text))


TRAINER = Column("trainer", kind=TEXT, cell=_trainer)
STRUCTURES = (
    Column("missed", "", "structures", cell=_shown("missed", "{:.0f}", "evaluations", "of {:.0f}")),
    Column("false", "positive", "structures", cell=_shown("false_positives", "{:.0f}", "evaluations", "of {:.0f}")),
)
