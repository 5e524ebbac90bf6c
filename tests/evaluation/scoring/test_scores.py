"""Empty masks, regions, thin images, and the box that is cut out."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from scipy import ndimage

from nnunet_ssl.evaluation.scoring.definitions import METRICS
from nnunet_ssl.evaluation.scoring.labels import EvaluatedClass
from nnunet_ssl.evaluation.scoring.scores import enclosing_box, score_classes, score_pair

ONE = [EvaluatedClass("one", (1,))]
EMPTY = np.zeros((3, 4, 12), np.int32)
SPACING = (2.0, 3.0, 0.5)  # extent 6 x 12 x 6 mm, diagonal sqrt(216)


def point(*index: int) -> np.ndarray:
    labels = EMPTY.copy()
    labels[index] = 1
    return labels


@pytest.mark.parametrize(("spacing", "diagonal"), [(SPACING, math.sqrt(216)), ((1.0,) * 3, 13.0)])
@pytest.mark.parametrize(
    ("reference", "prediction", "status", "counts"),
    [(point(0, 0, 0), EMPTY, "missed", (1, 0)), (EMPTY, point(1, 1, 1), "false_positive", (0, 1))],
)
def test_missed_and_false_structures_get_the_worst_values(reference, prediction, status, counts, spacing, diagonal):
    (row,) = score_classes(reference, prediction, spacing, 1.0, ONE)
    worst = {"dice": 0, "jaccard": 0, "nsd": 0, "hd95": diagonal, "asd": diagonal, "assd": diagonal}
    assert {name: row[name] for name in METRICS} == pytest.approx(worst)
    assert (row["status"], (row["reference_voxels"], row["predicted_voxels"])) == (status, counts)


def test_nothing_there_and_nothing_predicted_has_no_value():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (row,) = score_classes(EMPTY, EMPTY.copy(), SPACING, 1.0, ONE)
    assert row["status"] == "true_negative"
    assert all(math.isnan(row[name]) for name in METRICS)
    assert (row["reference_voxels"], row["predicted_voxels"]) == (0, 0)


def test_present_in_both():
    (row,) = score_classes(point(0, 0, 0), point(0, 0, 3), SPACING, 1.0, ONE)
    assert (row["status"], row["hd95"], row["dice"]) == ("ok", 1.5, 0)


def test_no_distance_of_a_hit_exceeds_that_of_a_miss():
    (row,) = score_classes(point(0, 0, 0), point(-1, -1, -1), SPACING, 1.0, ONE)
    assert row["hd95"] < math.sqrt(216)


def test_a_region_is_the_union_of_its_labels():
    reference, prediction = EMPTY.copy(), EMPTY.copy()
    reference[0, 0, :4], reference[0, 0, 4:6] = 1, 3
    prediction[0, 0, :2], prediction[0, 0, 2:6] = 3, 1  # the same union
    rows = score_classes(reference, prediction, SPACING, 0.0, [EvaluatedClass("whole", (1, 3)), *ONE])
    assert [(row["class"], row["label"], row["dice"]) for row in rows] == [("whole", "1+3", 1.0), ("one", 1, 0.5)]
    assert rows[0]["reference_voxels"] == 6


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_image_one_voxel_thick_is_scored_in_two_dimensions(axis):
    flat = np.zeros((9, 9), np.int32)
    flat[1:8, 1:8] = 1
    small = np.zeros((9, 9), np.int32)
    small[2:7, 2:7] = 1
    spacing = np.insert([2.0, 1.0], axis, 50.0).tolist()
    arrays = [np.expand_dims(array, axis) for array in (flat, small)]
    expected = score_classes(flat, small, (2.0, 1.0), 1.0, ONE)
    assert score_classes(*arrays, spacing, 1.0, ONE) == expected
    assert expected[0]["asd"] > 1  # contours; were all voxels surface, each of the prediction would be at 0
    missed = score_classes(arrays[0], np.zeros_like(arrays[0]), spacing, 1.0, ONE)
    assert missed[0]["hd95"] == pytest.approx(math.hypot(18, 9))


def boxes(*arrays: np.ndarray) -> list:
    return [ndimage.find_objects(array) for array in arrays]


def test_the_box_holds_both_masks_with_a_margin_inside_the_image():
    first, second = np.zeros((2, 10, 10), np.int32)
    first[4, 0], second[6, 3], second[9, 9] = 1, 2, 5
    assert enclosing_box((10, 10), (1, 2), boxes(first, second)) == (slice(3, 8), slice(0, 5))
    assert enclosing_box((10, 10), (5,), boxes(first, second)) == (slice(8, 10), slice(8, 10))
    assert enclosing_box((10, 10), (7,), boxes(first, second)) == (slice(0, 0), slice(0, 0))
    assert enclosing_box((10, 10), (0, 1), boxes(first, second)) == (slice(0, 10), slice(0, 10))


@pytest.mark.parametrize("place", [(slice(0, 3),) * 3, (slice(3, 6),) * 3, (slice(0, 9), slice(0, 9), slice(4, 5))])
def test_cutting_out_changes_nothing_even_at_the_border(place):
    rng = np.random.default_rng(7)
    reference, prediction = np.zeros((2, 9, 9, 9), np.int32)
    reference[place] = rng.integers(0, 2, reference[place].shape)
    prediction[place] = rng.integers(0, 2, reference[place].shape)
    (row,) = score_classes(reference, prediction, (1.0, 2.0, 3.0), 1.5, ONE)
    whole = score_pair(reference == 1, prediction == 1, (1.0, 2.0, 3.0), 1.5, math.nan)
    padded = [np.pad(array == 1, 4) for array in (reference, prediction)]
    assert {name: row[name] for name in whole} == whole == score_pair(*padded, (1.0, 2.0, 3.0), 1.5, math.nan)
