"""One label out of several."""

from __future__ import annotations

import numpy as np

from nnunet_ssl.selftrain.selection.vote import disagreement, majority, uncertain


def maps(*voxels: tuple[int, ...]) -> list[np.ndarray]:
    """One label map per teacher; each argument holds what they say of one voxel."""
    return [np.array(labels, np.int16) for labels in zip(*voxels, strict=True)]


def test_the_majority_wins_and_of_equals_the_earlier_teacher():
    assert majority(maps((1, 1, 2), (2, 1, 1), (0, 1, 2), (2, 1, 0))).tolist() == [1, 1, 0, 2]
    assert majority(maps((1, 2), (2, 1))).tolist() == [1, 2]
    assert majority(
        maps(
            (2, 0, 0, 2),
        )
    ).tolist() == [2]  # two votes each: member 0's
    assert majority(
        maps(
            (1, 0, 0, 2),
        )
    ).tolist() == [0]
    assert majority([np.array([3])]).tolist() == [3]


def test_the_majority_keeps_shape_and_type():
    first = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    voted = majority([first, first])
    assert voted.dtype == np.int16 and np.array_equal(voted, first)


def test_voxels_on_which_teachers_differ():
    assert disagreement(maps((1, 1, 1), (1, 1, 2), (0, 1, 2), (0, 0, 0))).tolist() == [False, True, True, False]
    assert disagreement([np.array([1, 2])]).tolist() == [False, False]


def test_uncertain_voxels_are_those_and_those_of_low_probability():
    probabilities = np.array([[0.1, 0.5, 0.85, 0.2], [0.9, 0.5, 0.15, 0.8]])
    same = maps((1, 1), (0, 0), (0, 1), (1, 1))
    assert uncertain(same, None, 0.8).tolist() == [False, False, True, False]
    assert uncertain(same, probabilities, 0.8).tolist() == [False, True, True, False]  # 0.8 is not below 0.8
    assert uncertain(same, probabilities, 0.95).tolist() == [True, True, True, True]
