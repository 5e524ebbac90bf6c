"""One case: reference and prediction are read, compared as files, and scored class by class."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

from nnunet_ssl.data.quiet import describe_failure
from nnunet_ssl.evaluation.scoring.conventions import Convention
from nnunet_ssl.evaluation.scoring.grid import grid_difference
from nnunet_ssl.evaluation.scoring.label_file import read_label_file, unknown_labels, values_in
from nnunet_ssl.evaluation.scoring.labels import Labels
from nnunet_ssl.evaluation.scoring.scores import Row, score_classes
from nnunet_ssl.system.failures import raise_failure

LEFT_OUT = -1  # stands for the ignore label in both arrays; in no class


@dataclass(frozen=True)
class Rules:
    """How every case is scored.

    Attributes:
        reader: name of nnU-Net's reader class.
        labels: the classes and the values that may occur; None to collect the values instead of scoring.
        voxel: distances in voxels instead of mm.
        tolerance: of the NSD, in mm or voxels.
        convention: of a publication, in place of this package's own.
    """

    reader: str
    labels: Labels | None
    voxel: bool
    tolerance: float
    convention: Convention | None = None


@dataclass(frozen=True)
class CaseResult:
    """What came of one case.

    Attributes:
        rows: one per class, with the columns of evaluation.csv; empty where there are problems.
        problems: why it cannot be scored, one line each.
        has_spacing: whether the reference's file tells its spacing.
        found: the values in the reference and in the prediction, where they were collected.
    """

    rows: tuple[Row, ...] = ()
    problems: tuple[str, ...] = ()
    has_spacing: bool = True
    found: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())


def score_case(case: str, reference_file: str, prediction_file: str, rules: Rules, score: bool = True) -> CaseResult:
    """Check and score one case. One bad file does not raise, it must not hide the others.

    Args:
        case: its id.
        reference_file: label file.
        prediction_file: label file.
        rules: how to score.
        score: false to check the files only, because nothing will be written anyway.

    Raises:
        SystemFailure: permission denied and the like, for which no file is to blame.
    """
    try:
        return _score_case(case, reference_file, prediction_file, rules, score)
    except Exception as error:
        raise_failure(error)
        return CaseResult(problems=(f"{case}: cannot be evaluated: {describe_failure(error, place=True)}",))


def _score_case(case: str, reference_file: str, prediction_file: str, rules: Rules, score: bool) -> CaseResult:
    reader = recursive_find_reader_writer_by_name(rules.reader)()
    names = {
        "reference": f"{case}: the reference {os.path.basename(reference_file)}",
        "prediction": f"{case}: the prediction {os.path.basename(prediction_file)}",
    }
    reference, prediction = read_label_file(reference_file, reader), read_label_file(prediction_file, reader)
    if isinstance(reference, str) or isinstance(prediction, str):
        read = zip(names.values(), (reference, prediction), strict=True)
        return CaseResult(problems=tuple(f"{name} {problem}" for name, problem in read if isinstance(problem, str)))
    if rules.labels is None:
        return CaseResult(found=(values_in(reference.labels), values_in(prediction.labels)))
    problems = []
    permitted = rules.labels.known | ({rules.labels.ignore} if rules.labels.ignore is not None else set())
    for name, file in zip(names.values(), (reference, prediction), strict=True):
        if problem := unknown_labels(file.labels, permitted):
            problems.append(f"{name} {problem}")
    if difference := grid_difference(reference.grid, prediction.grid):
        problems.append(f"{names['prediction']} lies on another grid: {difference}")
    elif rules.labels.ignore is not None:
        _leave_out(reference.labels, prediction.labels, rules.labels.ignore)
        if count := int(np.count_nonzero(prediction.labels == rules.labels.ignore)):
            problems.append(
                f"{names['prediction']} has the ignore label in {count} voxels that the reference does not ignore"
            )
    if problems or not score:
        return CaseResult(problems=tuple(problems))
    spacing = (1.0,) * reference.labels.ndim if rules.voxel else reference.grid.spacing
    pairs = {case: (reference.labels, prediction.labels)}
    if rules.convention is not None and rules.convention.by_slice and reference.labels.ndim == 3:
        slices = zip(reference.labels, prediction.labels, strict=True)
        pairs, spacing = {f"{case}:{number}": pair for number, pair in enumerate(slices)}, spacing[1:]
    rows = tuple(
        {"case": name} | row
        for name, pair in pairs.items()
        for row in score_classes(*pair, spacing, rules.tolerance, rules.labels.classes, rules.convention)
    )
    return CaseResult(rows, (), reference.grid.has_spacing)


def _leave_out(reference: np.ndarray, prediction: np.ndarray, ignore: int) -> None:
    """In place: voxels with the ignore label in the reference belong to no mask."""
    left_out = reference == ignore
    reference[left_out] = LEFT_OUT
    prediction[left_out] = LEFT_OUT
