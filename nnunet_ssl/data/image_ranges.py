"""Do the images without labels look like the labelled ones? Spacing and size, per axis, as the images are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_ssl.data.image_checks import CaseReport
from nnunet_ssl.errors import SemiSupervisedError

TOLERANCE = 1.5  # factor beyond the smallest and the largest labelled case that is still usual (recommended)
PLACEHOLDER = 999
KEYS = ("spacings", "shapes_after_crop")


def unusual_cases(reports: Sequence[CaseReport], fingerprint: Mapping[str, Any]) -> list[str]:
    """One line per case whose spacing or size lies outside [min / 1.5, max * 1.5] of the labelled cases on an axis.

    Args:
        reports: cases that were read.
        fingerprint: dataset_fingerprint.json; size is ``shapes_after_crop`` times ``spacings``, in mm.

    Raises:
        SemiSupervisedError, ValueError, TypeError, IndexError: no such fingerprint.
    """
    missing = [key for key in KEYS if not isinstance(fingerprint, Mapping) or not fingerprint.get(key)]
    if missing:
        raise SemiSupervisedError(f"it lacks {' and '.join(missing)}")
    spacings = np.array(fingerprint["spacings"], dtype=float)
    sizes = np.array(fingerprint["shapes_after_crop"], dtype=float) * spacings
    lines = []
    for report in reports:
        if report.shape is None or report.spacing is None:
            continue
        spacing = np.array(report.spacing)
        size = np.array(report.shape) * spacing
        axes = _axes(spacing, spacings)
        # readers of images without any spacing say 1
        unit = "mm" if axes.start == 0 or np.any(spacing[axes] != 1) or np.any(spacings[:, axes] != 1) else "pixels"
        parts = [
            _outside(what, values[axes], usual[:, axes], unit)
            for what, values, usual in (("spacing", spacing, spacings), ("size", size, sizes))
        ]
        if any(parts):
            lines.append(f"{report.case}: {', '.join(part for part in parts if part)}")
    return lines


def _axes(spacing: np.ndarray, spacings: np.ndarray) -> slice:
    """Axes with a real spacing: in 2D images nnU-Net's readers put a first axis of 999 times the largest spacing."""
    rows = np.vstack([spacing, spacings])
    return slice(int(np.allclose(rows[:, 0], PLACEHOLDER * rows[:, 1:].max(axis=1))), None)


def _outside(what: str, values: np.ndarray, usual: np.ndarray, unit: str) -> str:
    low, high = usual.min(axis=0), usual.max(axis=0)
    if np.all(values >= low / TOLERANCE) and np.all(values <= high * TOLERANCE):
        return ""
    found = " x ".join(f"{value:.4g}" for value in values)
    expected = " x ".join(f"{a:.4g}" if a == b else f"{a:.4g}-{b:.4g}" for a, b in zip(low, high, strict=True))
    return f"{what} {found} {unit} (labelled cases {expected})"
