"""Image, reference and predictions of one case, for the pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

from nnunet_ssl.data.quiet import captured_output
from nnunet_ssl.evaluation.report.load import TEST, Run, read_json


@dataclass(frozen=True)
class Volumes:
    """One case as seen by one training.

    Attributes:
        image: first channel, (Z, Y, X).
        reference, prediction: label values, (Z, Y, X); the reference is None where nobody has labelled the case.
        spacing: (z, y, x) in mm.
    """

    image: np.ndarray
    reference: np.ndarray | None
    prediction: np.ndarray
    spacing: tuple[float, float, float]


def read_volumes(run: Run, scope: str, case: str) -> Volumes:
    """Read a case with the reader that nnU-Net uses for this dataset.

    Raises:
        FileNotFoundError: image, reference or prediction is not where it was; the message says what and where.
        ValueError: they are not on one grid.
    """
    evaluation = run.evaluations[scope]
    prediction = _existing([str(evaluation.get("prediction", "")), *_own_predictions(run, scope)])
    content = {"file_ending": ".nii.gz", **_dataset_json(run, prediction)}
    ending = str(content["file_ending"])
    image = _find("image", image_folders(run, scope), f"{case}_0000{ending}")
    reference = _find("reference", [str(evaluation.get("reference", ""))], f"{case}{ending}")
    return volumes_of(content, image, reference, _find("prediction", [prediction], f"{case}{ending}"))


def volumes_of(dataset_json: Mapping[str, Any], image: Path, reference: Path | None, prediction: Path) -> Volumes:
    """Three files of a case, read with the reader that nnU-Net uses for this dataset.

    Raises:
        ValueError: they are not on one grid.
    """
    with captured_output():  # nnU-Net prints which reader it takes
        reader: BaseReaderWriter = determine_reader_writer_from_dataset_json(
            dict(dataset_json), str(image), verbose=False
        )()
    pixels, properties = reader.read_images((str(image),))
    labels = [np.asarray(reader.read_seg(str(file))[0])[0] for file in (reference, prediction) if file is not None]
    if any(found.shape != pixels.shape[1:] for found in labels):
        names = "image, reference and prediction" if len(labels) == 2 else "image and prediction"
        shapes = ", ".join(map(str, (pixels.shape[1:], *(found.shape for found in labels))))
        raise ValueError(f"{names} ({prediction}) have the shapes {shapes}")
    z, y, x = map(float, properties["spacing"])
    return Volumes(pixels[0], None if reference is None else labels[0], labels[-1], (z, y, x))


def image_folders(run: Run, scope: str) -> list[str]:
    """Where the images of the evaluated cases may be, the likeliest first."""
    folders = []
    test = run.record.get("test")
    if scope == TEST and isinstance(test, dict):
        folders.append(str(test.get("images", "")))
    reference = Path(str(run.evaluations[scope].get("reference", "")))
    if reference.name.startswith("labels"):
        folders.append(str(reference.with_name(reference.name.replace("labels", "images", 1))))
    raw = os.environ.get("nnUNet_raw")
    if raw:
        folders += [os.path.join(raw, run.dataset, name) for name in ("imagesTr", "imagesTs")]
    return list(dict.fromkeys(folder for folder in folders if folder))


def _own_predictions(run: Run, scope: str) -> list[str]:
    return [str(run.results_folder / "validation")] if run.results_folder is not None and scope != TEST else []


def _existing(folders: Sequence[str]) -> str:
    return next((folder for folder in folders if folder and os.path.isdir(folder)), folders[0])


def _dataset_json(run: Run, prediction: str) -> dict[str, Any]:
    """nnU-Net puts a copy beside predictions and into the folder of the model."""
    places = [Path(prediction)]
    places += [run.results_folder.parent] if run.results_folder is not None else []
    return next((content for place in places if (content := read_json(place / "dataset.json"))), {})


def _find(what: str, folders: Sequence[str], name: str) -> Path:
    for folder in folders:
        if os.path.isfile(os.path.join(folder, name)):
            return Path(folder, name)
    if not folders:
        raise FileNotFoundError(f"no folder is known for the {what} {name}, and nnUNet_raw is not set")
    raise FileNotFoundError(f"the {what} {name} was not found in {', '.join(folders)}")
