"""Where the voxels of an image lie, by what nnU-Net's readers give, and whether two images lie on the same grid."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunet_ssl.data.image_files import spacing_file

TOLERANCE = 0.1  # of the smallest side of a voxel: what headers lose when they are converted stays far below


@dataclass(frozen=True)
class Grid:
    """Voxels per axis, and the way from voxel indices to millimetres.

    Attributes:
        shape: voxels per axis of the array, (Y, X) or (Z, Y, X).
        spacing: mm per axis of the array; ones where the file does not tell.
        affine: homogeneous matrix from (x, y[, z]) indices (the axes of the array reversed) to mm, or None where
            the format has no place for direction and origin.
        has_spacing: whether the file tells the spacing.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    affine: np.ndarray | None
    has_spacing: bool


def grid_of(reader: BaseReaderWriter, path: str, shape: tuple[int, ...], properties: Mapping[str, Any]) -> Grid:
    """The grid of an image that one of nnU-Net's readers has read.

    Args:
        reader: the reader.
        path: the file; TIFF stacks have their spacing in a JSON file beside it.
        shape: (1 or Z, Y, X), of the array without its channel axis.
        properties: what the reader returned with the array.
    """
    spacing = tuple(float(s) for s in properties["spacing"])
    affine, has_spacing = None, True
    if "sitk_stuff" in properties:
        affine = _sitk_affine(properties["sitk_stuff"])
    elif "nibabel_stuff" in properties:
        stuff = properties["nibabel_stuff"]
        affine = np.asarray(stuff.get("reoriented_affine", stuff["original_affine"]), dtype=float)
    elif isinstance(reader, NaturalImage2DIO):
        has_spacing = False
    elif isinstance(reader, Tiff3DIO):
        has_spacing = os.path.isfile(spacing_file(path, label=True))
    flat = isinstance(reader, NaturalImage2DIO) or (affine is not None and len(affine) == 3)
    if flat:  # readers put an axis of one voxel and an invented spacing in front of a 2D image
        shape, spacing = shape[1:], spacing[1:]
    return Grid(shape, spacing, affine, has_spacing)


def _sitk_affine(stuff: Mapping[str, Any]) -> np.ndarray:
    spacing, dimensions = np.asarray(stuff["spacing"], dtype=float), len(stuff["spacing"])
    affine = np.eye(dimensions + 1)
    affine[:-1, :-1] = np.asarray(stuff["direction"], dtype=float).reshape(dimensions, dimensions) * spacing
    affine[:-1, -1] = stuff["origin"]
    return affine


def spacing_problem(grid: Grid) -> str:
    """Why distances cannot be measured on this grid; empty if they can."""
    if all(np.isfinite(s) and s > 0 for s in grid.spacing):
        return ""
    return f"has an unusable spacing: {_by(grid.spacing)} mm"


def grid_difference(reference: Grid, prediction: Grid) -> str:
    """How the prediction's grid differs from the reference's, to be read after "lies on another grid: "; or empty.

    What counts is where the corners of the image come to lie: differences of headers below a tenth of a voxel there
    are rounding.
    """
    if reference.shape != prediction.shape:
        return f"{_by(prediction.shape)} voxels, the reference has {_by(reference.shape)}"
    tolerance = TOLERANCE * min(reference.spacing)
    if reference.affine is not None and prediction.affine is not None:
        corners = np.array([*itertools.product(*((0, n - 1) for n in reversed(reference.shape)), [1])])[..., None]
        shift = np.linalg.norm((prediction.affine - reference.affine) @ corners, axis=1).max()
        return "" if shift <= tolerance else _affine_difference(reference.affine, prediction.affine, float(shift))
    if reference.has_spacing and prediction.has_spacing:
        shifts = [
            abs(p - r) * (n - 1) for r, p, n in zip(reference.spacing, prediction.spacing, reference.shape, strict=True)
        ]
        if max(shifts) > tolerance:
            return f"spacing {_by(prediction.spacing)} mm, the reference has {_by(reference.spacing)} mm"
    return ""


def _affine_difference(reference: np.ndarray, prediction: np.ndarray, shift: float) -> str:
    parts = []
    for name, of in (("spacing", _spacing), ("direction", _direction), ("origin", _origin)):
        ours, theirs = of(prediction), of(reference)
        if not np.allclose(ours, theirs, rtol=1e-4, atol=1e-4):
            parts.append(f"{name} {_list(ours)}, the reference has {_list(theirs)}")
    return "; ".join([*parts, f"corners are up to {shift:.4g} mm apart"])


def _spacing(affine: np.ndarray) -> np.ndarray:
    return np.linalg.norm(affine[:-1, :-1], axis=0)


def _direction(affine: np.ndarray) -> np.ndarray:
    return affine[:-1, :-1] / _spacing(affine)


def _origin(affine: np.ndarray) -> np.ndarray:
    return affine[:-1, -1]


def _list(values: np.ndarray) -> str:
    return f"({', '.join(f'{value:.4g}' for value in np.ravel(values) + 0.0)})"


def _by(values: tuple[float, ...]) -> str:
    return " x ".join(f"{value:.5g}" for value in reversed(values))
