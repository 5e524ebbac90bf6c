"""Masks of classes in label maps, and how much two of them overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def dice(first: np.ndarray, second: np.ndarray) -> float | None:
    """Dice of two masks of one shape: 2 |A and B| / (|A| + |B|). One empty: 0; both empty: None."""
    total = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
    return 2 * int(np.count_nonzero(first & second)) / total if total else None


def mask_of(labels: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """Bool, in the shape of the label map: where it holds one of the values of a class or region."""
    return labels == values[0] if len(values) == 1 else np.isin(labels, values)
