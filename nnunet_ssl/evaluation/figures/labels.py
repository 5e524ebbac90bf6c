"""Pictures of labelled or unlabelled cases: the image, the true label where there is one, predictions as contours."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.report import overlay_figure
from nnunet_ssl.evaluation.report.drawing import COLORS, MARKERS, Style
from nnunet_ssl.evaluation.report.overlay_figure import Panel
from nnunet_ssl.evaluation.report.volumes import Volumes, volumes_of
from nnunet_ssl.evaluation.scoring.dataset import Dataset, find_dataset
from nnunet_ssl.evaluation.scoring.labels import EvaluatedClass
from nnunet_ssl.evaluation.scoring.masks import dice, mask_of
from nnunet_ssl.system.whole_files import write_whole


def draw_labels(
    images: str,
    predictions: Mapping[str, str],
    output: str,
    *,
    reference: str | None = None,
    cases: Sequence[str] | None = None,
    dataset_json: str | None = None,
) -> list[str]:
    """Write OUTPUT/CASE.png for each case: the slice with most of the true label, or of what is predicted without one.

    Args:
        images: folder, named as for nnUNetv2_predict; the first channel is shown.
        predictions: title -> folder of label files, such as pseudo-labels.
        output: folder, made where it is missing.
        reference: folder of true labels; a case that it lacks has none.
        cases: ids; None: all that every folder of predictions has.
        dataset_json: path; None: looked for with the predictions and beside the labels.

    Returns:
        The files.

    Raises:
        SemiSupervisedError: a folder, case or file that is not there or not on the image's grid, all listed.
    """
    folders = [images, *predictions.values(), *([] if reference is None else [reference])]
    if missing := [folder for folder in folders if not os.path.isdir(folder)]:
        raise complain(
            "These are not folders:",
            missing,
            "Give the folder of images with -i, of labels with -ref, -pred NAME=FOLDER.",
        )
    first = next(iter(predictions.values()))
    dataset = find_dataset(reference or first, first, dataset_json)
    if dataset.labels is None:
        raise complain(f"There is no dataset.json in {first}, which names the classes.", remedy="Give it with -djfile.")
    chosen = list(cases) if cases is not None else _common(list(predictions.values()), dataset.file_ending)
    looks = {
        name: Style(name, COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)], 1.6, 2)
        for index, name in enumerate(predictions)
    }
    labels, written, problems = [str(kind.label) for kind in dataset.labels.classes], [], []
    os.makedirs(output, exist_ok=True)
    for case in chosen:
        try:
            panels = _panels(case, images, predictions, reference, dataset)
        except (OSError, RuntimeError, ValueError) as error:
            problems.append(f"{case}: {error}")
            continue
        written.append(os.path.join(output, f"{case}.png"))
        write_whole(Path(written[-1]), overlay_figure.draw(case, [("", panels)], labels, looks))
    if problems or not written:
        nothing = [f"there is no case that all of {', '.join(predictions.values())} have"]
        raise complain(
            "These cases cannot be shown:", problems or nothing, "Choose others with --cases, or give other folders."
        )
    return written


def mean_dice(volumes: Volumes, classes: Sequence[EvaluatedClass]) -> float | None:
    """Over the classes that the true label or the prediction shows; None without a true label or any class."""
    if volumes.reference is None:
        return None
    pairs = [(mask_of(volumes.reference, kind.values), mask_of(volumes.prediction, kind.values)) for kind in classes]
    values = [value for pair in pairs if (value := dice(*pair)) is not None]
    return float(np.mean(values)) if values else None


def _panels(
    case: str, images: str, predictions: Mapping[str, str], reference: str | None, dataset: Dataset
) -> dict[str, Panel]:
    assert dataset.labels is not None
    image, name, panels = Path(images, f"{case}_0000{dataset.file_ending}"), case + dataset.file_ending, {}
    truth = Path(reference, name) if reference is not None and os.path.isfile(os.path.join(reference, name)) else None
    files = [image, *(Path(folder, name) for folder in predictions.values())]
    if missing := [str(file) for file in files if not file.is_file()]:
        raise FileNotFoundError(f"{', '.join(missing)} missing")
    for title, file in zip(predictions, files[1:], strict=True):
        volumes = volumes_of(dataset.content, image, truth, file)
        panels[title] = Panel(volumes, mean_dice(volumes, dataset.labels.classes))
    return panels


def _common(folders: Sequence[str], ending: str) -> list[str]:
    """Cases that all of them hold."""
    names = [{name for name in os.listdir(folder) if name.endswith(ending)} for folder in folders]
    return sorted(name.removesuffix(ending) for name in set.intersection(*names))
