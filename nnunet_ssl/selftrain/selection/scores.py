"""How sure teachers are of a case, in [0, 1] per class. Pure functions of arrays.

In every function ``None`` stands for a class that has no score in this case.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy.special import entr

from nnunet_ssl.evaluation.scoring.masks import dice, mask_of

SURE = 0.9  # probability above which a voxel counts as confident


def agreement(maps: Sequence[np.ndarray], values: Sequence[int]) -> float | None:
    """Mean Dice over all pairs of teachers, of one class.

    A pair in which both show nothing is skipped, in which one does counts as 0.

    Args:
        maps: label map of each teacher, one shape, at least two.
        values: label values of the class.
    """
    masks = [mask_of(labels, values) for labels in maps]
    pairs = [score for first, second in combinations(masks, 2) if (score := dice(first, second)) is not None]
    return float(np.mean(pairs)) if pairs else None


def confidence(probability: np.ndarray, mask: np.ndarray) -> float | None:
    """Share of the voxels labelled as a class whose probability of it is above SURE.

    Args:
        probability: of the class, any shape.
        mask: where the label is the class, the same shape.
    """
    inside = probability[mask]
    return float(np.mean(inside > SURE)) if inside.size else None


def certainty(probabilities: np.ndarray, mask: np.ndarray) -> float | None:
    """1 - mean entropy over the voxels labelled as a class, as a share of the highest possible one, ln K.

    Args:
        probabilities: (K, *shape), summing to 1 over K.
        mask: (*shape), where the label is the class.
    """
    inside = probabilities[:, mask]
    if not inside.size:
        return None
    return float(1 - np.mean(entr(inside.astype(np.float64)).sum(axis=0)) / np.log(len(probabilities)))


def lowest(scores: Sequence[float | None]) -> float | None:
    """The case's score: that of its worst class; None where no class has one."""
    known = [score for score in scores if score is not None]
    return min(known) if known else None
