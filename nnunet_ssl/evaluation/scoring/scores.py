"""The rows of one case: status, metrics and voxel counts of every class."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from nnunet_ssl.evaluation.scoring.conventions import Convention
from nnunet_ssl.evaluation.scoring.definitions import DISTANCES, METRICS
from nnunet_ssl.evaluation.scoring.labels import EvaluatedClass

MARGIN = 1  # voxels around both masks, so that every surface voxel keeps its neighbours

Row = dict[str, Any]
Box = tuple[slice, ...]


def score_classes(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing: Sequence[float],
    tolerance: float,
    classes: Sequence[EvaluatedClass],
    convention: Convention | None = None,
) -> list[Row]:
    """One row per class, without the name of the case.

    An image that is one voxel thick is scored in 2D: in 3D all of its voxels would be surface.

    Args:
        reference: int labels, (Y, X) or (Z, Y, X).
        prediction: the same.
        spacing: per axis of the arrays; distances are in its unit.
        tolerance: of the NSD, in the same unit.
        classes: to be scored.
        convention: of a publication, in place of this package's own.
    """
    thin = [axis for axis, n in enumerate(reference.shape) if n == 1]
    if reference.ndim == 3 and len(thin) == 1:
        reference, prediction = reference.squeeze(thin[0]), prediction.squeeze(thin[0])
        spacing = [s for axis, s in enumerate(spacing) if axis != thin[0]]
    diagonal = math.hypot(*(n * s for n, s in zip(reference.shape, spacing, strict=True)))
    found = [ndimage.find_objects(array) for array in (reference, prediction)]
    rows = []
    for entry in classes:
        box = enclosing_box(reference.shape, entry.values, found)
        masks = (class_mask(reference[box], entry), class_mask(prediction[box], entry))
        scored = score_pair(*masks, spacing, tolerance, diagonal, convention)
        rows.append({"class": entry.name, "label": entry.label} | scored)
    return rows


def enclosing_box(shape: tuple[int, ...], values: tuple[int, ...], found: Iterable[list[Box | None]]) -> Box:
    """The smallest box that holds these values in every array, and a margin as far as the image reaches.

    Args:
        shape: of the arrays.
        values: of a class.
        found: what scipy's find_objects returned for each array: the box of value v at v - 1.
    """
    if min(values) < 1:
        return tuple(slice(0, n) for n in shape)
    boxes = [box for objects in found for v in values if v <= len(objects) and (box := objects[v - 1]) is not None]
    return tuple(
        slice(max(0, min(s.start for s in along) - MARGIN), min(n, max(s.stop for s in along) + MARGIN))
        if along
        else slice(0, 0)
        for n, along in zip(shape, zip(*boxes, strict=True) if boxes else [()] * len(shape), strict=True)
    )


def class_mask(labels: np.ndarray, entry: EvaluatedClass) -> np.ndarray:
    """Where the class is, by nnU-Net's own rule."""
    from nnunetv2.evaluation.evaluate_predictions import region_or_label_to_mask  # takes seconds to import

    return np.asarray(region_or_label_to_mask(labels, entry.values), dtype=bool)


def score_pair(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing: Sequence[float],
    tolerance: float,
    diagonal: float,
    convention: Convention | None = None,
) -> Row:
    """Status, metrics and voxel counts of two masks, any of which may be empty.

    Args:
        reference: bool.
        prediction: bool, the same shape.
        spacing: per axis.
        tolerance: of the NSD, in the unit of the spacing.
        diagonal: of the whole image in the same unit, the distance of missed and false-positive structures.
        convention: whose values empty masks get, whose HD95 is meant, and which metrics have values at all.
    """
    present, predicted = int(np.count_nonzero(reference)), int(np.count_nonzero(prediction))
    if present and predicted:
        from nnunet_ssl.evaluation.scoring.metrics import pooled_hd95, score_masks  # takes seconds to import

        status, values = "ok", score_masks(prediction, reference, spacing, tolerance)
        if convention is not None:
            values |= {name: math.nan for name in METRICS if name not in convention.reported}
            if "hd95" in convention.reported:
                values["hd95"] = pooled_hd95(prediction, reference)
    elif present or predicted:
        status = "missed" if present else "false_positive"
        values = {name: diagonal if name in DISTANCES else 0.0 for name in METRICS}
    else:
        status, values = "true_negative", dict.fromkeys(METRICS, math.nan)
    if convention is not None and status != "ok":
        values = convention.of_empty(status)
    return {"status": status, **values, "reference_voxels": present, "predicted_voxels": predicted}
