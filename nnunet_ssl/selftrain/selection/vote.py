"""One label map out of several, and where they differ. Pure functions of arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from nnunet_ssl.evaluation.scoring.masks import mask_of


def majority(maps: Sequence[np.ndarray]) -> np.ndarray:
    """The value that most teachers give each voxel; of several with as many votes, the one of the earlier teacher.

    Args:
        maps: label maps of one shape and type, at least one.
    """
    stack = np.stack(maps)
    votes = np.stack([np.count_nonzero(stack == labels, axis=0) for labels in maps])
    winner = votes.argmax(axis=0)  # the first of equals
    return np.take_along_axis(stack, winner[None], axis=0)[0]


def found_by_any(maps: Sequence[np.ndarray], classes: Iterable[Sequence[int]]) -> np.ndarray:
    """Bool, in the shape of the maps: voxels to which a teacher gives a value of one of the classes."""
    values = [value for of_class in classes for value in of_class]
    result = np.zeros(maps[0].shape, dtype=bool)
    for labels in maps:
        result |= mask_of(labels, values)
    return result


def disagreement(maps: Sequence[np.ndarray]) -> np.ndarray:
    """Bool, in the shape of the maps: voxels to which the teachers give more than one value."""
    first, *others = maps
    differ = np.zeros(first.shape, dtype=bool)
    for labels in others:
        differ |= labels != first
    return differ


def uncertain(maps: Sequence[np.ndarray], probabilities: np.ndarray | None, confidence: float) -> np.ndarray:
    """Bool: voxels that get the ignore label: teachers differ, or the highest mean probability is below a limit.

    Args:
        maps: label maps (*shape).
        probabilities: (K, *shape), mean over the teachers; None: only differences count.
        confidence: the limit.
    """
    result = disagreement(maps)
    if probabilities is not None:
        result |= probabilities.max(axis=0) < confidence
    return result
