"""Differences to the control with their intervals, the best trainer first: one panel per number of labelled cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from nnunet_ssl.evaluation.report.drawing import CONTROL_COLOR, LINES, TEXT, Style, new_figure, tidy, to_png
from nnunet_ssl.evaluation.report.quantities import QUANTITIES, number
from nnunet_ssl.evaluation.report.tables import FOREGROUND, Table
from nnunet_ssl.evaluation.report.text_tables import table_title

WIDTH, ROW, REST = 4.1, 0.27, 1.3  # inches: of a panel, of each trainer's line, of title and axis
COLUMNS = ("difference", "difference_low", "difference_high")


def draw(tables: Sequence[Table], looks: Mapping[str, Style]) -> list[tuple[Table, bytes]]:
    """The tables that compare anything, each with the PNG of its panel; all share the range of their axis.

    Sorted by the first metric of the tables, whose differences are drawn with their 95 % bootstrap intervals.
    """
    rows = [(table, found) for table in tables if len(found := differences(table))]
    if not rows:
        return []
    ends = pd.concat([found[[*COLUMNS]] for _, found in rows]).stack()
    low, high = min(ends.min(), 0.0), max(ends.max(), 0.0)
    margin = 0.06 * (high - low) or 1.0
    return [(table, _panel(table, found, looks, (low - margin, high + margin))) for table, found in rows]


def differences(table: Table) -> pd.DataFrame:
    """Columns trainer and COLUMNS in the unit that is shown, the best first; empty without a control."""
    metric = table.metrics[0]
    quantity, numbers = QUANTITIES[metric], table.numbers
    found = numbers[(numbers["class"] == FOREGROUND) & (numbers["metric"] == metric)].dropna(subset="difference")
    shown = found[[*COLUMNS]].astype(float).map(quantity.shown)
    found = pd.concat([found["trainer"], shown], axis=1)
    return found.sort_values(["difference", "trainer"], ascending=[not quantity.overlap, True], ignore_index=True)


def _panel(table: Table, found: pd.DataFrame, looks: Mapping[str, Style], limits: tuple[float, float]) -> bytes:
    quantity = QUANTITIES[table.metrics[0]]
    figure = new_figure(WIDTH, REST + ROW * len(found))
    axis = figure.add_subplot()
    axis.axvline(0, color=CONTROL_COLOR, linewidth=2)
    for line, row in found.iterrows():
        style, value = looks[row["trainer"]], row["difference"]
        reach = [[abs(value - row[end])] if pd.notna(row[end]) else [0.0] for end in COLUMNS[1:]]
        axis.errorbar(
            value, line, xerr=reach, color=style.color, marker=style.marker, markersize=6, elinewidth=1.6, capsize=2.5
        )
        text = number(value, quantity.decimals, signed=True)
        axis.text(1.02, line, text, transform=axis.get_yaxis_transform(), va="center", fontsize=8, color=TEXT)
    axis.set_yticks(range(len(found)), [looks[name].label for name in found["trainer"]])
    axis.set_ylim(len(found) - 0.5, -0.5)
    axis.set_xlim(*limits)
    tidy(axis)
    axis.grid(axis="y", visible=False)
    axis.grid(axis="x", color=LINES, linewidth=0.7)
    unit = "points" if quantity.overlap else quantity.unit(table.distance_unit)
    better = "right" if quantity.overlap else "left"
    axis.set_xlabel(f"{quantity.title}, difference to the control\n[{unit}], better to the {better}")
    figure.suptitle(table_title(table), x=0.01, ha="left", fontsize=9.5)  # of the axis it would begin behind long names
    return to_png(figure)
