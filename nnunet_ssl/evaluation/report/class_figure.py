"""Boxes of the values per case, for every class and trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from nnunet_ssl.evaluation.report.aggregate import EVALUATION, per_case
from nnunet_ssl.evaluation.report.drawing import TEXT, Style, legend, new_figure, tidy, to_png
from nnunet_ssl.evaluation.report.quantities import QUANTITIES
from nnunet_ssl.evaluation.report.tables import Table

WIDEST = 11.0  # inches of panels side by side
FEW = 60  # cases up to which every one is a dot
WIDTH, FILLED = 0.76, 0.86  # of the boxes of one class, of the distance between classes; of a box, of its room


def draw(tables: Sequence[Table], values: pd.DataFrame, metric: str, looks: Mapping[str, Style]) -> bytes:
    """PNG with one panel per split.

    Args:
        values: rows of :class:`nnunet_ssl.evaluation.report.load.Benchmark` at the place of these tables.
    """
    classes = list(dict.fromkeys(name for table in tables for name in table.classes))
    trainers = [name for name in looks if any(name in table.trainers for table in tables)]
    width = max(3.4, 0.34 * len(classes) * len(trainers) + 0.9)
    stacked = width * len(tables) > WIDEST
    rows, columns = (len(tables), 1) if stacked else (1, len(tables))
    figure = new_figure(width * columns, 3.0 * rows + 0.5)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    quantity = QUANTITIES[metric]
    room = WIDTH / len(trainers)
    for axis, table in zip(axes, tables, strict=True):
        data = case_values(values[values["split"] == table.split], metric)
        for index, trainer in enumerate(trainers):
            of_trainer = data[data["trainer"] == trainer]
            boxes = [of_trainer.loc[of_trainer["class"] == name, metric].to_numpy() for name in classes]
            positions = np.arange(len(classes)) + (index - (len(trainers) - 1) / 2) * room
            _boxes(axis, boxes, positions, room * FILLED, looks[trainer], data["case"].nunique() <= FEW)
        axis.set_xticks(range(len(classes)), classes)
        axis.set_xlim(-0.5, len(classes) - 0.5)
        axis.set_title(f"split {table.split}", loc="left", fontsize=9.5)
        axis.set_ylabel(f"{quantity.title} [{quantity.unit(table.distance_unit)}]")
        axis.label_outer()
        tidy(axis)
    legend(figure, [Patch(facecolor=looks[n].color, edgecolor=TEXT, label=looks[n].label) for n in trainers])
    return to_png(figure)


def case_values(values: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row per trainer, class and case, in the unit that is shown: the mean over seeds (and folds)."""
    by_class = values.set_index(EVALUATION).groupby(["trainer", "class"], sort=False)[metric]
    cases = pd.concat({key: per_case(of_class.dropna()) for key, of_class in by_class}, names=["trainer", "class"])
    return cases.map(QUANTITIES[metric].shown).rename(metric).reset_index()


def _boxes(
    axis: Axes, values: Sequence[np.ndarray], positions: np.ndarray, width: float, style: Style, dots: bool
) -> None:
    """The boxes of one trainer. With dots, every case is one, moved aside a little and always by the same amount."""
    lines: dict[str, Any] = {"color": TEXT, "linewidth": 0.9}
    axis.boxplot(
        values,
        positions=list(positions),
        widths=width,
        patch_artist=True,
        boxprops={"facecolor": style.color, "edgecolor": TEXT, "linewidth": 0.9},
        medianprops=lines,
        whiskerprops=lines,
        capprops=lines,
        showfliers=not dots,
        flierprops={"marker": ".", "markersize": 3, "markeredgecolor": TEXT},
        manage_ticks=False,
    )
    generator = np.random.default_rng(0)
    for position, of_class in zip(positions, values if dots else [], strict=False):
        aside = generator.uniform(-width / 4, width / 4, len(of_class))
        axis.scatter(position + aside, of_class, s=5, color=TEXT, alpha=0.7, linewidths=0, zorder=4)
