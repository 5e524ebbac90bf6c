"""The metrics of two masks, all by MONAI.

MONAI takes seconds to import. So this module is imported by those who score, not by those who hand out cases.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.meandice import compute_dice
from monai.metrics.meaniou import compute_iou
from monai.metrics.surface_dice import compute_surface_dice
from monai.metrics.surface_distance import compute_average_surface_distance
from monai.metrics.utils import get_edge_surface_distance

PERCENTILE = 95


def score_masks(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float], tolerance: float
) -> dict[str, float]:
    """Dice, Jaccard, HD95, ASD (prediction to reference), ASSD (pooled) and NSD.

    Args:
        prediction: bool, (Y, X) or (Z, Y, X).
        reference: bool, the same shape.
        spacing: per axis of the arrays; distances are in its unit.
        tolerance: of the NSD, in the same unit.

    Raises:
        ValueError: a mask is empty (then most of these numbers do not exist), or the shapes differ.
    """
    if prediction.shape != reference.shape or prediction.ndim != len(spacing):
        raise ValueError(f"shapes {prediction.shape} and {reference.shape} with {len(spacing)} spacings")
    if not (prediction.any() and reference.any()):
        raise ValueError("both masks need voxels")
    masks: dict[str, Any] = {
        "y_pred": torch.from_numpy(np.ascontiguousarray(prediction))[None, None],
        "y": torch.from_numpy(np.ascontiguousarray(reference))[None, None],
        "include_background": True,  # the only channel is the class
    }
    step: dict[str, Any] = {"spacing": [float(s) for s in spacing]}
    with _one_thread():
        values = {
            "dice": compute_dice(**masks),
            "jaccard": compute_iou(**masks),
            "hd95": compute_hausdorff_distance(**masks, **step, percentile=PERCENTILE, directed=False),
            "asd": compute_average_surface_distance(**masks, **step, symmetric=False),
            "assd": compute_average_surface_distance(**masks, **step, symmetric=True),
            "nsd": compute_surface_dice(**masks, **step, class_thresholds=[float(tolerance)]),
        }
    return {name: float(value) for name, value in values.items()}


def pooled_hd95(prediction: np.ndarray, reference: np.ndarray) -> float:
    """95th percentile of the distances of both directions pooled, in voxels: medpy's hd95, on MONAI's surfaces.

    Args:
        prediction, reference: bool, (Y, X) or (Z, Y, X), each with voxels.
    """
    mine, theirs = (torch.from_numpy(np.ascontiguousarray(mask)) for mask in (prediction, reference))
    with _one_thread():
        _, distances, _ = get_edge_surface_distance(
            mine, theirs, distance_metric="euclidean", spacing=[1.0] * prediction.ndim, symmetric=True
        )
    return float(np.percentile(np.hstack([np.asarray(each) for each in distances]), PERCENTILE))


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for torch: cases are what runs in parallel. MONAI warns of itself, unheard."""
    previous = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
            yield
    finally:
        torch.set_num_threads(previous)
