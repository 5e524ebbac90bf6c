"""Tiny label files and nnU-Net's folders around them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK
import tifffile
from skimage import io

LABELS = {"background": 0, "ball": 1, "box": 2}


def volume(seed: int = 0, shape: Sequence[int] = (6, 8, 10)) -> np.ndarray:
    """uint8 labels: a box of 1 with a smaller box of 2 inside, both away from the border by chance only."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    low = [int(rng.integers(0, 2)) for _ in shape]
    high = [n - int(rng.integers(0, 2)) for n in shape]
    labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = 1
    labels[tuple(slice(a + 1, b - 2) for a, b in zip(low, high, strict=True))] = 2
    return labels


def write(
    path: Path,
    labels: np.ndarray,
    spacing: Sequence[float] | None = None,
    direction: np.ndarray | None = None,
    origin: Sequence[float] | None = None,
) -> None:
    """Write labels (Z, Y, X) or (Y, X); spacing in the same order, direction and origin as in the header (x first)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".png", ".bmp") or (path.suffix == ".tif" and labels.ndim == 2):
        io.imsave(path, labels, check_contrast=False)
    elif path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, labels)
        if spacing is not None:
            path.with_suffix(".json").write_text(json.dumps({"spacing": list(spacing)}))
    else:
        image = SimpleITK.GetImageFromArray(labels)
        image.SetSpacing(tuple(reversed(spacing or (1.0,) * labels.ndim)))
        if direction is not None:
            image.SetDirection(np.ravel(direction).tolist())
        if origin is not None:
            image.SetOrigin(origin)
        SimpleITK.WriteImage(image, str(path))


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def dataset_json(ending: str = ".nii.gz", **more: object) -> dict:
    return {"channel_names": {"0": "mr"}, "labels": LABELS, "numTraining": 2, "file_ending": ending, **more}


class Folders:
    """labelsTr with dataset.json beside it, and a folder of predictions.

    Args:
        root: where.
        cases: ids; the prediction of each is its reference.
        ending: of label files.
        content: changes of dataset.json.
    """

    def __init__(self, root: Path, cases: Iterable[str] = ("a", "b"), ending: str = ".nii.gz", **content: object):
        self.raw, self.predictions = root / "raw", root / "predictions"
        self.references, self.ending = self.raw / "labelsTr", ending
        write_json(self.raw / "dataset.json", dataset_json(ending, **content))
        self.predictions.mkdir()
        for seed, case in enumerate(cases):
            self.add(case, volume(seed))

    def add(self, case: str, reference: np.ndarray, prediction: np.ndarray | None = None, **geometry) -> None:
        write(self.references / (case + self.ending), reference, **geometry)
        write(self.predictions / (case + self.ending), reference if prediction is None else prediction, **geometry)

    @property
    def paths(self) -> tuple[str, str]:
        return str(self.references), str(self.predictions)
