"""The picture of the demo: test cases as rows; image, reference and both predictions as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from nnunet_ssl.demo.options import CONTROL
from nnunet_ssl.demo.results import Scores
from nnunet_ssl.system.whole_files import whole_file

COLORS = ("#F0E442", "#56B4E9", "#00B07C", "#E58BC0")  # told apart with every kind of colour vision
ERROR_COLOR = "#FF3B30"


@dataclass(frozen=True)
class Row:
    """One test case: volumes (Z, Y, X) of the image, the reference and each prediction; spacing (x, y, z) in mm."""

    case: str
    image: np.ndarray
    reference: np.ndarray
    predictions: tuple[np.ndarray, ...]
    spacing: tuple[float, ...]


def read_row(case: str, images: Path, labels: Path, predictions: Sequence[Path]) -> Row:
    """Read a case from nnU-Net's folders."""
    image = sitk.ReadImage(str(images / f"{case}_0000.nii.gz"))
    maps = [sitk.GetArrayFromImage(sitk.ReadImage(str(f / f"{case}.nii.gz"))) for f in (labels, *predictions)]
    return Row(case, sitk.GetArrayFromImage(image), maps[0], tuple(maps[1:]), image.GetSpacing())


def best_slice(reference: np.ndarray, count: int) -> int:
    """Index of the axial slice that shows most of all organs: the sum over labels 1 to count of its share of each."""
    areas = np.stack([(reference == label).sum(axis=(1, 2)) for label in range(1, count + 1)], axis=1)
    return int((areas / np.maximum(areas.max(axis=0), 1)).sum(axis=1).argmax())


def draw(rows: Sequence[Row], scores: Sequence[Scores], path: Path) -> None:
    """Write the PNG. ``scores`` has one entry per prediction of a row, and the cases of all rows."""
    organs = scores[0].organs
    kinds = ["labelled cases only" if s.trainer == CONTROL else "with unlabelled cases" for s in scores]
    titles = [f"{s.short_name}\n{kind}" for s, kind in zip(scores, kinds, strict=True)]
    figure = Figure(figsize=(2.9 * (2 + len(scores)), 2.45 * len(rows) + 1.1), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), 2 + len(scores), squeeze=False)
    for row, line in zip(rows, axes, strict=True):
        index = best_slice(row.reference, len(organs))
        reference = row.reference[index]
        for axis in line:
            _show_image(axis, row.image[index], row.spacing)
        _show_labels(line[1], reference, len(organs))
        for axis, prediction, score in zip(line[2:], row.predictions, scores, strict=True):
            _show_labels(axis, prediction[index], len(organs))
            _outline(axis, prediction[index] != reference)
            dice = np.nanmean(score.dice[score.cases.index(row.case)])
            axis.set_xlabel(f"Dice {dice:.2f} (whole volume)")
        line[0].set_ylabel(row.case)
    for axis, title in zip(axes[0], ["image", "reference", *titles], strict=True):
        axis.set_title(title)
    handles: list[Any] = [Patch(color=c, label=o) for c, o in zip(COLORS, organs, strict=False)]
    handles.append(Line2D([], [], color=ERROR_COLOR, label="outline of wrong voxels"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    means = ", ".join(f"{s.short_name} {s.mean:.3f}" for s in scores)
    figure.suptitle(f"Semi-supervised nnU-Net on synthetic MR. Mean Dice on the test cases: {means}", fontweight="bold")
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def _show_image(axis: Any, image: np.ndarray, spacing: tuple[float, ...]) -> None:
    low, high = np.percentile(image, (1, 99.5))
    axis.imshow(image, cmap="gray", vmin=low, vmax=high, aspect=spacing[1] / spacing[0], interpolation="bilinear")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


def _show_labels(axis: Any, labels: np.ndarray, count: int) -> None:
    for label in range(1, count + 1):
        mask = labels == label
        if mask.any():
            color = COLORS[label - 1]
            axis.contourf(mask, levels=[0.5, 1.5], colors=[color], alpha=0.45)
            axis.contour(mask, levels=[0.5], colors=[color], linewidths=1.2)


def _outline(axis: Any, mask: np.ndarray) -> None:
    if mask.any():
        axis.contour(mask, levels=[0.5], colors=[ERROR_COLOR], linewidths=0.9)
