"""Do the images without labels look like the labelled ones? Spacing and size, per axis, as the images are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_ssl.data.image_checks import CaseReport

TOLERANCE = 1.5  # factor beyond the smallest and the largest labelled case that is still usual (recommended)


def unusual_cases(reports: Sequence[CaseReport], fingerprint: Mapping[str, Any]) -> list[str]:
    """One line per case whose spacing or size lies outside [min / 1.5, max * 1.5] of the labelled cases on an axis.

    Args:
        reports: cases that were read.
        fingerprint: dataset_fingerprint.json; size is ``shapes_after_crop`` times ``spacings``, in mm.
    """
    spacings = np.array(fingerprint["spacings"], dtype=float)
    sizes = np.array(fingerprint["shapes_after_crop"], dtype=float) * spacings
    lines = []
    for report in reports:
        if report.shape is None or report.spacing is None:
            continue
        spacing = np.array(report.spacing)
        size = np.array(report.shape) * spacing
        parts = [_outside("spacing", spacing, spacings), _outside("size", size, sizes)]
        if any(parts):
            lines.append(f"{report.case}: {', '.join(part for part in parts if part)}")
    return lines


def _outside(what: str, values: np.ndarray, usual: np.ndarray) -> str:
    low, high = usual.min(axis=0), usual.max(axis=0)
    if np.all(values >= low / TOLERANCE) and np.all(values <= high * TOLERANCE):
        return ""
    found = " x ".join(f"{value:.4g}" for value in values)
    expected = " x ".join(f"{a:.4g}" if a == b else f"{a:.4g}-{b:.4g}" for a, b in zip(low, high, strict=True))
    return f"{what} {found} mm (labelled cases {expected})"
