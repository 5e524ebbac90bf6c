"""Tables as text in cells, the same for Markdown, LaTeX and HTML."""

from __future__ import annotations

from dataclasses import dataclass, field

from nnunet_ssl.evaluation.report.published import Published
from nnunet_ssl.evaluation.report.quantities import MISSING, QUANTITIES, number
from nnunet_ssl.evaluation.report.statistics import ALPHA
from nnunet_ssl.evaluation.report.tables import FOREGROUND, Cell, Row, Table

SHORTEST_P = 0.001


@dataclass(frozen=True)
class Text:
    """One cell: what is read first, and a detail for small print."""

    main: str
    detail: str = ""
    bold: bool = False


@dataclass(frozen=True)
class Grid:
    """Cells under headings.

    Attributes:
        title: of the table.
        groups: headings above neighbouring columns, (text, number of columns); the numbers add up to the columns.
        columns: headings, (text, detail).
        rows: cells, as many as columns.
        leading: the first columns that hold text and not numbers.
        emphasised: index of the rows that stand for the control.
        remarks: whether the last column holds sentences.
    """

    title: str
    groups: list[tuple[str, int]]
    columns: list[tuple[str, str]]
    rows: list[list[Text]]
    leading: int = 1
    emphasised: list[int] = field(default_factory=list)
    remarks: bool = False

    def is_text(self, column: int) -> bool:
        """Whether a column holds text, which is aligned to the left."""
        return column < self.leading or (self.remarks and column == len(self.columns) - 1)


def short_name(trainer: str) -> str:
    """Without the nnUNetTrainer in front."""
    return trainer.removeprefix("nnUNetTrainer") or trainer


def shown_name(row: Row) -> str:
    """As in tables and legends."""
    return short_name(row.trainer) + (" (control)" if row.control else "")


def main_grid(table: Table) -> Grid:
    """What a reader looks at first: means, differences to the control, misses and costs."""
    compared = any(row.control for row in table.rows)
    gpu = any(row.gpu_memory_mb is not None for row in table.rows)
    groups, columns = [("", 1)], [("trainer", "")]
    for metric in table.metrics:
        quantity = QUANTITIES[metric]
        group = [("mean", "\u00b1 std")]
        if compared:
            group += [("difference", "95 % interval"), ("p", "Holm")]
        groups.append((f"{quantity.title}, {quantity.unit(table.distance_unit)}", len(group)))
        columns += group
    cost = [("s per step", "\u00d7 control" if compared else ""), ("memory", "GB")]
    cost += [("GPU memory", "GB")] if gpu else []
    groups += [("structures", 2), ("cost", len(cost)), ("", 1)]
    columns += [("missed", ""), ("false", "positive"), *cost, ("cases", "")]
    rows = [_main_row(table, row, compared, gpu) for row in table.rows]
    emphasised = [i for i, row in enumerate(table.rows) if row.control]
    return Grid(table_title(table), groups, columns, rows, emphasised=emphasised)


def table_title(table: Table) -> str:
    """The split with its numbers of cases."""
    if table.labeled is None or table.withheld is None:
        return f"Split {table.split}"
    return f"Split {table.split}: {_span(table.labeled)} labelled cases, labels of {_span(table.withheld)} withheld"


def spread_grid(table: Table) -> Grid:
    """How much the means vary, what they are without empty masks, and p before correction."""
    columns = [("trainer", ""), ("metric", ""), ("mean", ""), ("std", "over cases"), ("std", "over folds")]
    columns += [("std", "over seeds"), ("mean", "ok only"), ("p", "uncorrected"), ("compared", "cases")]
    columns += [("cases", ""), ("trainings", "")]
    rows = []
    for row in table.rows:
        for metric in table.metrics:
            quantity, cell = QUANTITIES[metric], row.cells[FOREGROUND, metric]
            spread, comparison = cell.spread, cell.comparison
            numbers = (spread.mean, spread.over_cases, spread.over_folds, spread.over_seeds, cell.ok_mean)
            texts = [shown_name(row), f"{quantity.title}, {quantity.unit(table.distance_unit)}"]
            texts += [quantity.text(value) for value in numbers]
            texts += [p_text(comparison.p) if comparison else MISSING]
            texts += [str(comparison.cases) if comparison else MISSING, str(spread.cases), str(row.jobs)]
            rows.append([Text(text) for text in texts])
    emphasised = [i for i in range(len(rows)) if table.rows[i // len(table.metrics)].control]
    return Grid("Spread, mean without empty masks", [("", len(columns))], columns, rows, 2, emphasised)


def class_grid(table: Table) -> Grid:
    """Every class by itself; described with intervals, not tested."""
    compared = any(row.control for row in table.rows)
    groups, columns = [("", 2)], [("class", ""), ("trainer", "")]
    for metric in table.metrics:
        quantity = QUANTITIES[metric]
        group = [("mean", "\u00b1 std"), *([("difference", "95 % interval")] if compared else [])]
        groups.append((f"{quantity.title}, {quantity.unit(table.distance_unit)}", len(group)))
        columns += group
    groups += [("structures", 2), ("", 1)]
    columns += [("missed", ""), ("false", "positive"), ("cases", "with a value")]
    rows = []
    for name in table.classes:
        for row in table.rows:
            cells = [Text(name), Text(shown_name(row))]
            for metric in table.metrics:
                cell = row.cells[name, metric]
                cells.append(_mean(cell, metric))
                cells += [_difference(cell, metric)] if compared else []
            cells += [_count(row.missed[name], row.evaluated[name])]
            cells += [_count(row.false_positives[name], row.evaluated[name])]
            rows.append([*cells, Text(str(row.cells[name, table.metrics[0]].spread.cases))])
    emphasised = [i for i in range(len(rows)) if table.rows[i % len(table.rows)].control]
    return Grid("Per class", groups, columns, rows, 2, emphasised)


def published_grid(table: Table, published: Published) -> Grid | None:
    """Ours and the reported numbers, one row per paper, method and class; None where nothing fits."""
    if published.rows.empty:
        return None
    metrics = [m for m in table.metrics if m in set(published.rows["metric"])]
    columns = [("source", ""), ("method", ""), ("labelled", ""), ("class", "")]
    columns += [(QUANTITIES[m].title, "") for m in metrics] + [("comparable?", "")]
    rows = []
    for row in table.rows:
        cells = [Text("this benchmark"), Text(shown_name(row)), Text(_span(table.labeled or (0, 0))), Text(FOREGROUND)]
        for metric in metrics:
            text = QUANTITIES[metric].text(row.cells[FOREGROUND, metric].spread.mean)
            cells.append(Text(f"{text} {QUANTITIES[metric].unit(table.distance_unit)}"))
        rows.append([*cells, Text("")])
    keys = ["paper", "method", "labeled", "total", "class"]
    for (paper, method, labeled, total, name), found in published.rows.groupby(keys, sort=False):
        sources = ", ".join(dict.fromkeys(s for s in found["source"] if s))
        labels = number(labeled, 0) + (f" of {number(total, 0)}" if total == total else "")
        cells = [Text(paper, sources), Text(method), Text(labels), Text(name)]
        for metric in metrics:
            values = [f"{r['value']:g} {r['unit']}" for r in found[found["metric"] == metric].to_dict("records")]
            cells.append(Text(", ".join(values) or MISSING))
        caveats = dict.fromkeys(reason for c in found["caveat"] if c for reason in c.split("; "))
        remarks = "; ".join(dict.fromkeys(n for n in found["note"] if n))
        verdict = f"not directly: {'; '.join(caveats)}" if caveats else f"same protocol ({published.protocol})"
        rows.append([*cells, Text(verdict, remarks)])
    title = "Reported by papers" + (", not directly comparable" if all(published.rows["caveat"]) else "")
    emphasised = [i for i, row in enumerate(table.rows) if row.control]
    return Grid(title, [("", len(columns))], columns, rows, 4, emphasised, remarks=True)


def p_text(p: float | None) -> str:
    """Three decimals; a dash where there is no test."""
    if p is None:
        return MISSING
    return f"<{SHORTEST_P}" if p < SHORTEST_P else f"{p:.3f}"


def _main_row(table: Table, row: Row, compared: bool, gpu: bool) -> list[Text]:
    cells = [Text(shown_name(row))]
    for metric in table.metrics:
        cell = row.cells[FOREGROUND, metric]
        cells.append(_mean(cell, metric))
        if compared:
            cells += [_difference(cell, metric), _p(cell, metric)]
    structures = row.evaluated[FOREGROUND]
    cells += [_count(row.missed[FOREGROUND], structures), _count(row.false_positives[FOREGROUND], structures)]
    seconds = row.seconds_per_step
    ratio = f"\u00d7 {row.time_ratio:.2f}" if compared and row.time_ratio is not None else ""
    cells.append(Text(MISSING if seconds is None else f"{seconds:.3g}", ratio))
    memory = [row.memory_mb, *([row.gpu_memory_mb] if gpu else [])]
    cells += [Text(MISSING if mb is None else f"{mb / 1024:.1f}") for mb in memory]
    count = max(row.cells[FOREGROUND, m].spread.cases for m in table.metrics)
    return [*cells, Text(str(count), f"{row.jobs} training{'s' if row.jobs != 1 else ''}")]


def _mean(cell: Cell, metric: str) -> Text:
    quantity, std = QUANTITIES[metric], cell.spread.over_cases
    return Text(quantity.text(cell.spread.mean), f"\u00b1 {quantity.text(std)}" if std is not None else "")


def _difference(cell: Cell, metric: str) -> Text:
    comparison, quantity = cell.comparison, QUANTITIES[metric]
    if comparison is None:
        return Text(MISSING)
    low_high = [quantity.text(v, signed=True) for v in comparison.interval or ()]
    interval = f"[{', '.join(low_high)}]" if low_high else ""
    return Text(quantity.text(comparison.difference, signed=True), interval, bold=_is_significant(cell))


def _p(cell: Cell, metric: str) -> Text:
    if cell.comparison is None or not _is_significant(cell):
        return Text(p_text(cell.p))
    better = (cell.comparison.difference > 0) == QUANTITIES[metric].overlap
    return Text(p_text(cell.p), "better" if better else "worse", bold=True)


def _is_significant(cell: Cell) -> bool:
    return cell.p is not None and cell.p < ALPHA


def _count(count: int, of: int) -> Text:
    return Text(str(count), f"of {of}")


def _span(low_high: tuple[int, int]) -> str:
    low, high = low_high
    return str(low) if low == high else f"{low} to {high}"
