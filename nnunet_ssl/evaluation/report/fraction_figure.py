"""Means against the number of labelled cases, with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from nnunet_ssl.evaluation.report.drawing import Style, legend, line_handles, new_figure, tidy, to_png
from nnunet_ssl.evaluation.report.quantities import QUANTITIES
from nnunet_ssl.evaluation.report.tables import FOREGROUND, Table

PANELS = 3  # side by side
APART = 1.025  # factor between trainers at the same number of cases, so that intervals do not hide each other


def draw(tables: Sequence[Table], looks: Mapping[str, Style]) -> bytes | None:
    """PNG with one panel per metric, one line per trainer. None where the numbers of labelled cases are unknown."""
    known = [table for table in tables if table.labeled is not None]
    if not known:
        return None
    metrics = known[0].metrics
    columns = min(len(metrics), PANELS)
    lines = math.ceil(len(metrics) / columns)
    figure = new_figure(max(4.6, 4.3 * columns), 3.7 * lines)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes[len(metrics) :]:
        axis.set_axis_off()
    trainers = [name for name in looks if any(name in table.trainers for table in known)]
    numbers = pd.concat([table.numbers.assign(position=position(table)) for table in known])
    numbers = numbers[numbers["class"] == FOREGROUND].dropna(subset="mean").sort_values("position")
    for axis, metric in zip(axes, metrics, strict=False):
        quantity = QUANTITIES[metric]
        for index, name in enumerate(trainers):
            points = numbers[(numbers["metric"] == metric) & (numbers["trainer"] == name)]
            mean = points["mean"].map(quantity.shown)
            ends = [points[end].map(quantity.shown).fillna(mean) for end in ("mean_low", "mean_high")]
            axis.errorbar(
                points["position"] * APART ** (index - (len(trainers) - 1) / 2),
                mean,
                yerr=[abs(end - mean) for end in ends],
                color=looks[name].color,
                linewidth=looks[name].width,
                marker=looks[name].marker,
                markersize=6,
                elinewidth=1.2,
                capsize=2.5,
                zorder=looks[name].order,
            )
        direction = "higher is better" if quantity.overlap else "lower is better"
        axis.set_ylabel(f"{quantity.title} [{quantity.unit(known[0].distance_unit)}]")
        axis.set_title(f"{quantity.title}, {direction}", loc="left", fontsize=9.5)
        _x_axis(axis, known)
        tidy(axis)
    legend(figure, line_handles([looks[name] for name in trainers]))
    return to_png(figure)


def position(table: Table) -> float:
    """Number of labelled cases, the middle where folds differ."""
    low, high = table.labeled or (0, 0)
    return (low + high) / 2


def _x_axis(axis: Axes, tables: Sequence[Table]) -> None:
    axis.set_xscale("log")
    ticks = sorted({position(table) for table in tables})
    labels = []
    for tick in ticks:
        table = next(t for t in tables if position(t) == tick)
        share = ""
        if table.withheld is not None:
            share = f"\n{100 * tick / (tick + sum(table.withheld) / 2):.0f} %"
        labels.append(f"{tick:g}{share}")
    axis.set_xticks(ticks, labels)
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(ticks[0] / 1.25, ticks[-1] * 1.25)
    axis.set_xlabel("labelled training cases, and their share")
