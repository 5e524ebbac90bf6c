"""One case: image with reference, and what each trainer predicts, on the slice with most of the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from nnunet_ssl.evaluation.report.drawing import Style, legend, new_figure, to_png
from nnunet_ssl.evaluation.report.volumes import Volumes

MARGIN = 0.35  # around the structures, as a share of their extent
HALO = "#000000"
REFERENCE = "#FFFFFF"
COLUMNS = 7  # side by side; more trainers go on below


@dataclass(frozen=True)
class Panel:
    """One prediction. ``dice``: of the case, in [0, 1], None where it is undefined."""

    volumes: Volumes
    dice: float | None


def draw(
    case: str, rows: Sequence[tuple[str, Mapping[str, Panel]]], labels: Sequence[str], looks: Mapping[str, Style]
) -> bytes:
    """PNG: splits as rows; image with reference, then trainers as columns, on several lines where they are many.

    Args:
        rows: (split, trainer -> panel), at least one panel in each; all or none with a reference.
        labels: the column "label" of evaluation.csv, one entry per class.
    """
    trainers = [name for name in looks if any(name in panels for _, panels in rows)]
    first = next(iter(rows[0][1].values())).volumes
    everything = [panel.volumes for _, panels in rows for panel in panels.values()]
    known = first.reference is not None
    shown = first.reference if first.reference is not None else _any_of(everything, labels)
    index, window = best_slice(shown, labels), window_around(everything, labels)
    _, height, width = (s * n for s, n in zip(first.spacing, extent_of(window), strict=True))
    side = 2.3
    columns = min(COLUMNS, 1 + len(trainers))
    lines = math.ceil((1 + len(trainers)) / columns)  # of each split
    figure = new_figure(
        side * columns + 0.3, (side * min(max(height / width, 0.6), 1.5) + 0.45) * lines * len(rows) + 0.5
    )
    axes = figure.subplots(lines * len(rows), columns, squeeze=False).reshape(len(rows), lines * columns)
    titles = ["reference" if known else "image", *(looks[name].label for name in trainers)]
    for line, (split, panels) in zip(axes, rows, strict=True):
        for axis in line[len(titles) :]:
            axis.set_axis_off()
        reference = next(iter(panels.values())).volumes
        show_slice(line[0], reference, index, window)
        _draw_reference(line[0], reference, index, window, labels, 1.3)
        line[0].set_ylabel(f"split {split}" if split else "", fontsize=9)
        for axis, name in zip(line[1:], trainers, strict=False):
            if name not in panels:
                axis.set_axis_off()
                axis.text(0.5, 0.5, "no prediction", ha="center", va="center", fontsize=9, transform=axis.transAxes)
                continue
            panel, style = panels[name], looks[name]
            show_slice(axis, panel.volumes, index, window)
            draw_outlines(axis, masks_of(panel.volumes.prediction[index][window], labels), style.color, 2.4)
            _draw_reference(axis, panel.volumes, index, window, labels, 0.9)
            axis.set_xlabel("" if panel.dice is None else f"Dice {100 * panel.dice:.1f} % (whole volume)", fontsize=8.5)
            for spine in axis.spines.values():
                spine.set(visible=True, color=style.color, linewidth=2.5)
    for line in axes if lines > 1 else axes[:1]:
        for axis, title in zip(line, titles, strict=False):
            axis.set_title(title, fontsize=9.5)
    handles: list[Any] = [
        Line2D([], [], color=looks[name].color, linewidth=2.4, label=looks[name].label) for name in trainers
    ]
    if known:
        handles.insert(0, Line2D([], [], color="#BBBBBB", linewidth=1.3, label="reference (white)"))
    legend(figure, handles)
    figure.suptitle(f"{case}, slice {index + 1} of {len(first.image)}", fontsize=10.5)
    return to_png(figure)


def best_slice(reference: np.ndarray, labels: Sequence[str]) -> int:
    """Index of the first slice with the largest area of all classes; the middle one if there is no class."""
    areas = _any(reference, labels).sum(axis=(1, 2))
    return int(areas.argmax()) if areas.any() else len(reference) // 2


def label_values(label: str) -> list[int]:
    """ "1+2" -> [1, 2]: the values of a region."""
    return [int(value) for value in label.split("+")]


def _any(segmentation: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    return np.isin(segmentation, sorted({value for label in labels for value in label_values(label)}))


def _any_of(volumes: Sequence[Volumes], labels: Sequence[str]) -> np.ndarray:
    """Where any prediction shows a class, as the first label."""
    found = np.any([_any(volume.prediction, labels) for volume in volumes], axis=0)
    return np.where(found, label_values(labels[0])[0], 0)


def _draw_reference(
    axis: Axes, volumes: Volumes, index: int, window: tuple[slice, slice], labels: Sequence[str], width: float
) -> None:
    if volumes.reference is not None:
        draw_outlines(axis, masks_of(volumes.reference[index][window], labels), REFERENCE, width)


def masks_of(segmentation: np.ndarray, labels: Sequence[str]) -> list[np.ndarray]:
    """A mask per class."""
    return [np.isin(segmentation, label_values(label)) for label in labels]


def window_around(volumes: Sequence[Volumes], labels: Sequence[str]) -> tuple[slice, slice]:
    """Rows and columns around everything that is in a reference or a prediction, with a margin."""
    inside = np.zeros(volumes[0].image.shape[1:], dtype=bool)
    for volume in volumes:
        for segmentation in (volume.reference, volume.prediction):
            if segmentation is not None:
                inside |= _any(segmentation, labels).any(axis=0)
    if not inside.any():
        inside[:] = True
    window = []
    for axis in (1, 0):
        found = np.flatnonzero(inside.any(axis=axis))
        margin = int(np.ceil(MARGIN * (found[-1] - found[0] + 1))) + 2
        window.append(slice(max(0, found[0] - margin), min(inside.shape[1 - axis], found[-1] + margin + 1)))
    return window[0], window[1]


def extent_of(window: tuple[slice, slice]) -> tuple[int, int, int]:
    """Voxels of one slice of the window."""
    return 1, *(s.stop - s.start for s in window)


def show_slice(axis: Axes, volumes: Volumes, index: int, window: tuple[slice, slice]) -> None:
    """The image in grey, its brightest and darkest voxels cut off."""
    shown = volumes.image[index][window]
    low, high = np.percentile(volumes.image[index], (1, 99.5))
    aspect = volumes.spacing[1] / volumes.spacing[2]
    axis.imshow(shown, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect, interpolation="bilinear")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


def draw_outlines(axis: Axes, masks: Sequence[np.ndarray], color: str, width: float) -> None:
    """The border of each mask, with a dark halo so that it is seen on white, too."""
    for mask in masks:
        if mask.any() and min(mask.shape) > 1:
            axis.contour(mask, levels=[0.5], colors=[HALO], linewidths=width + 0.9, alpha=0.55)
            axis.contour(mask, levels=[0.5], colors=[color], linewidths=width)
