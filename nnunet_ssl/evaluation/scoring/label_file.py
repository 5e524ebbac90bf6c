"""A label file, read with nnU-Net's reader and judged before anything is computed from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunet_ssl.data.file_damage import find_damage
from nnunet_ssl.data.image_files import file_problem, spacing_file_problem
from nnunet_ssl.data.quiet import Captured, captured_output, describe_failure
from nnunet_ssl.evaluation.scoring.grid import Grid, grid_of, spacing_problem
from nnunet_ssl.system.failures import raise_failure

SHOWN = 5  # unknown labels that a message names


@dataclass(frozen=True)
class LabelFile:
    """Labels on their grid.

    Attributes:
        labels: int32, in the shape of the grid.
        grid: where the voxels lie.
    """

    labels: np.ndarray
    grid: Grid


def read_label_file(path: str, reader: BaseReaderWriter) -> LabelFile | str:
    """The labels, or why they cannot be used, to be read after the file's name.

    Raises:
        SystemFailure: the system does not let the file be read.
    """
    if problem := find_damage(path) or file_problem(path, reader) or spacing_file_problem(path, reader, label=True):
        return problem
    printed = Captured()
    try:
        with captured_output() as printed:
            values, properties = reader.read_seg(path)
        if values.ndim != 4 or len(values) != 1:
            return f"is not a label file: it has {len(values)} channels"
        grid = grid_of(reader, path, values.shape[1:], properties)
    except Exception as error:
        raise_failure(error)
        return f"cannot be read: {describe_failure(error, printed.text)}"
    if problem := spacing_problem(grid):
        return problem
    with np.errstate(invalid="ignore"):  # NaN becomes some number, and differs from it
        labels = values.astype(np.int32)
    if different := int(np.count_nonzero(labels != values)):
        return f"is not a label file: {different} voxels are not whole numbers"
    return LabelFile(labels.reshape(grid.shape), grid)


def unknown_labels(labels: np.ndarray, known: frozenset[int]) -> str:
    """Which values are not known, to be read after the file's name; empty if all are."""
    unknown = sorted(values_in(labels) - known)
    if not unknown:
        return ""
    shown = ", ".join(map(str, unknown[:SHOWN])) + (", ..." if len(unknown) > SHOWN else "")
    return f"has labels that dataset.json does not name: {shown}"


def values_in(labels: np.ndarray) -> frozenset[int]:
    """Every value that occurs."""
    return frozenset(int(value) for value in pd.unique(labels.ravel()))
