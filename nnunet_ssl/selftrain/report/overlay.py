"""A case before anybody trains on it: the image, where its teachers differ, and the label that was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from nnunet_ssl.evaluation.report.drawing import COLORS, legend, new_figure, to_png
from nnunet_ssl.evaluation.report.overlay_figure import (
    best_slice,
    draw_outlines,
    extent_of,
    masks_of,
    show_slice,
    window_around,
)
from nnunet_ssl.evaluation.report.volumes import Volumes
from nnunet_ssl.evaluation.scoring.labels import EvaluatedClass

DIFFERENCE, IGNORED = "#D55E00", "#56B4E9"
SIDE = 2.6  # inches of a panel


@dataclass(frozen=True)
class Shown:
    """One case. All arrays (Z, Y, X).

    Attributes:
        case, why: its id, and why it is shown.
        image: first channel.
        chosen: the label that students get, with the ignore label where that is in use.
        differing: bool, voxels on which the teachers differ.
        found: bool, voxels that any teacher labels.
        spacing: (z, y, x) in mm.
    """

    case: str
    why: str
    image: np.ndarray
    chosen: np.ndarray
    differing: np.ndarray
    found: np.ndarray
    spacing: tuple[float, float, float]


def draw(cases: Sequence[Shown], classes: Sequence[EvaluatedClass], ignore: int | None) -> bytes:
    """PNG: a row per case.

    Args:
        cases: at least one.
        classes: whose outlines are drawn.
        ignore: value of the voxels that are left out, or None.
    """
    labels = [str(kind.label) for kind in classes]
    shapes = [_view(case, labels) for case in cases]
    heights = [_height(case, window) for case, (_, window) in zip(cases, shapes, strict=True)]
    figure = new_figure(3 * SIDE + 0.3, sum(heights) + 0.45 * len(cases) + 0.6)
    axes = figure.subplots(len(cases), 3, squeeze=False, height_ratios=heights)
    for line, case, (index, window) in zip(axes, cases, shapes, strict=True):
        volumes = Volumes(case.image, case.chosen, case.chosen, case.spacing)
        for axis in line:
            show_slice(axis, volumes, index, window)
        aspect = case.spacing[1] / case.spacing[2]
        _overlay(line[1], case.differing[index][window], DIFFERENCE, aspect)
        if ignore is not None:
            _overlay(line[2], (case.chosen == ignore)[index][window], IGNORED, aspect)
        for mask, color in zip(masks_of(case.chosen[index][window], labels), _colors(labels), strict=True):
            draw_outlines(line[2], [mask], color, 1.6)
        line[0].set_title(f"{case.case}, slice {index + 1} of {len(case.image)}", fontsize=8.5)
        line[1].set_title("teachers differ", fontsize=8.5)
        line[2].set_title("chosen label", fontsize=8.5)
        line[0].set_ylabel(case.why, fontsize=8)
    names = [kind.name for kind in classes]
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=color, linewidth=1.6, label=name)
        for name, color in zip(names, _colors(labels), strict=True)
    ]
    handles.append(Patch(color=DIFFERENCE, label="teachers differ"))
    if ignore is not None:
        handles.append(Patch(color=IGNORED, label="ignored"))
    legend(figure, handles)
    return to_png(figure)


def _view(case: Shown, labels: Sequence[str]) -> tuple[int, tuple[slice, slice]]:
    """The slice with the largest chosen area, else where most differ, and the part of it that is shown."""
    structures = np.isin(case.chosen, [int(value) for label in labels for value in label.split("+")])
    anything = structures if structures.any() else case.found
    index = best_slice(anything.astype(np.uint8), ["1"])
    around = (anything | case.found).astype(np.uint8)
    return index, window_around([Volumes(case.image, around, around, case.spacing)], ["1"])


def _height(case: Shown, window: tuple[slice, slice]) -> float:
    _, height, width = (step * size for step, size in zip(case.spacing, extent_of(window), strict=True))
    return SIDE * float(min(max(height / width, 0.6), 1.5))


def _colors(labels: Sequence[str]) -> list[str]:
    palette = [color for color in COLORS if color not in (DIFFERENCE, IGNORED)]
    return [palette[index % len(palette)] for index in range(len(labels))]


def _overlay(axis: object, mask: np.ndarray, color: str, aspect: float) -> None:
    shown = np.ma.masked_where(~mask, mask)
    axis.imshow(shown, cmap=ListedColormap([color]), alpha=0.6, aspect=aspect, interpolation="nearest")  # type: ignore[attr-defined]
