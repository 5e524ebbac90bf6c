"""Values against MONAI on whole images, against plain scipy, and by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    compute_surface_dice,
)
from scipy import ndimage

from nnunet_ssl.evaluation.scoring.labels import EvaluatedClass
from nnunet_ssl.evaluation.scoring.metrics import score_masks
from nnunet_ssl.evaluation.scoring.scores import score_classes

METRICS = ("dice", "jaccard", "hd95", "asd", "assd", "nsd")


def random_pair(seed: int, dimensions: int) -> tuple[np.ndarray, np.ndarray, list[float], float]:
    """Blobs of labels 0 to 2, in every second pair up to the border; spacing; tolerance."""
    rng = np.random.default_rng(seed)
    shape = [int(n) for n in rng.integers(11, 17, dimensions)]

    def blobs() -> np.ndarray:
        field = ndimage.gaussian_filter(rng.normal(size=shape), 1.5)
        labels = np.digitize(field, np.quantile(field, [0.5, 0.8]))
        if seed % 2:
            edge = np.pad(np.ones([n - 4 for n in shape], bool), 2)
            labels[~edge] = 0
        return labels.astype(np.int32)

    return blobs(), blobs(), rng.uniform(0.3, 4, dimensions).tolist(), float(rng.uniform(0.5, 4))


def monai_on_whole_images(prediction, reference, spacing, tolerance) -> dict[str, float]:
    masks = [torch.from_numpy(mask.astype(np.float32))[None, None] for mask in (prediction, reference)]
    everything = {"include_background": True, "spacing": spacing}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        values = [
            compute_dice(masks[0].bool(), masks[1].bool()),
            compute_iou(*masks),
            compute_hausdorff_distance(*masks, percentile=95, **everything),
            compute_average_surface_distance(*masks, **everything),
            compute_average_surface_distance(*masks, symmetric=True, **everything),
            compute_surface_dice(*masks, class_thresholds=[tolerance], **everything),
        ]
    return {name: value.item() for name, value in zip(METRICS, values, strict=True)}


def plain_scipy(prediction, reference, spacing, tolerance) -> dict[str, float]:
    """The definitions written out: surfaces by erosion, distances by a distance transform of the whole image."""
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (prediction, reference)]
    to = [ndimage.distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    ahead, back = to[1][surfaces[0]], to[0][surfaces[1]]
    both = np.concatenate([ahead, back])
    common, sizes = (prediction & reference).sum(), prediction.sum() + reference.sum()
    return {
        "dice": 2 * common / sizes,
        "jaccard": common / (sizes - common),
        "hd95": max(np.percentile(ahead, 95), np.percentile(back, 95)),
        "asd": ahead.mean(),
        "assd": both.mean(),
        "nsd": (both <= tolerance).mean(),
    }


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("seed", range(10))
def test_random_anisotropic_pairs_equal_monai_and_scipy_on_whole_images(dimensions, seed):
    prediction, reference, spacing, tolerance = random_pair(seed, dimensions)
    classes = [EvaluatedClass("one", (1,)), EvaluatedClass("two", (2,)), EvaluatedClass("both", (1, 2))]
    rows = score_classes(reference, prediction, spacing, tolerance, classes)
    assert [row["status"] for row in rows] == ["ok"] * 3
    for row, entry in zip(rows, classes, strict=True):
        masks = [np.isin(array, entry.values) for array in (prediction, reference)]
        for expected in (monai_on_whole_images, plain_scipy):
            values = expected(*masks, spacing, tolerance)
            assert {name: row[name] for name in METRICS} == pytest.approx(values, rel=2e-6), expected.__name__
        assert (row["predicted_voxels"], row["reference_voxels"]) == (masks[0].sum(), masks[1].sum())


def bar(start: int, stop: int, axis: int = 1) -> np.ndarray:
    """A row of voxels, all of them surface, in an 8 x 8 image."""
    mask = np.zeros((8, 8), bool)
    mask[(slice(3, 4), slice(start, stop))[:: 1 if axis else -1]] = True
    return mask


@pytest.mark.parametrize(("axis", "unit"), [(0, 2.0), (1, 0.5)])
def test_shifted_bars_by_hand(axis, unit):
    # prediction 3..6, reference 2..5: distances 0 0 0 1 and 1 0 0 0 voxels along the axis
    found = score_masks(bar(3, 7, axis), bar(2, 6, axis), (2.0, 0.5), tolerance=0.0)
    expected = {"dice": 6 / 8, "jaccard": 3 / 5, "hd95": 0.85 * unit, "asd": unit / 4, "assd": unit / 4, "nsd": 6 / 8}
    assert found == pytest.approx(expected, rel=1e-6)


def test_asd_is_from_prediction_to_reference_and_assd_is_pooled():
    long, short = bar(2, 7), bar(2, 4)  # distances of the long one: 0 0 1 2 3, of the short one: 0 0
    found = score_masks(long, short, (1.0, 1.0), tolerance=1.0)
    assert (found["asd"], found["assd"]) == pytest.approx((6 / 5, 6 / 7))
    assert found["hd95"] == pytest.approx(2.8)  # 95th percentile of 0 0 1 2 3, interpolated; the other one is 0
    assert found["nsd"] == pytest.approx(5 / 7)
    swapped = score_masks(short, long, (1.0, 1.0), tolerance=1.0)
    assert swapped["asd"] == 0
    assert {**swapped, "asd": 0} == pytest.approx({**found, "asd": 0})


@pytest.mark.parametrize(("tolerance", "nsd"), [(3.99, 0.0), (4.0, 1.0)])
def test_two_voxels_apart_in_three_dimensions(tolerance, nsd):
    prediction, reference = np.zeros((2, 4, 6, 5), bool)
    prediction[0, 0, 1], reference[0, 2, 1] = True, True  # two voxels of 2 mm
    found = score_masks(prediction, reference, (5.0, 2.0, 0.7), tolerance)
    assert found == {"dice": 0, "jaccard": 0, "hd95": 4, "asd": 4, "assd": 4, "nsd": nsd}


def test_a_solid_block_has_no_surface_inside():
    block = np.zeros((7, 7, 7), bool)
    block[1:6, 1:6, 1:6] = True
    hollow = block.copy()
    hollow[3, 3, 3] = False  # its six neighbours become surface of the prediction, 1 voxel below the outer surface
    found = score_masks(hollow, block, (1.0, 1.0, 1.0), tolerance=0.5)
    outer = 5**3 - 3**3
    assert found["dice"] == pytest.approx(2 * 124 / (124 + 125))
    assert found["asd"] == pytest.approx(6 / (outer + 6))
    assert found["nsd"] == pytest.approx(2 * outer / (2 * outer + 6))


def test_equal_masks_are_perfect():
    mask = bar(2, 6)
    expected = {"dice": 1, "jaccard": 1, "hd95": 0, "asd": 0, "assd": 0, "nsd": 1}
    assert score_masks(mask, mask.copy(), (3.0, 1.0), tolerance=0.0) == expected


def test_empty_masks_and_other_shapes_are_refused():
    empty = np.zeros((8, 8), bool)
    for pair in ((empty, bar(1, 2)), (bar(1, 2), empty), (empty, empty)):
        with pytest.raises(ValueError, match="need voxels"):
            score_masks(*pair, (1.0, 1.0), 1.0)
    with pytest.raises(ValueError, match="shapes"):
        score_masks(bar(1, 2), bar(1, 2)[:4], (1.0, 1.0), 1.0)


def test_one_thread_while_scoring_and_no_warning(recwarn, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "nnunet_ssl.evaluation.scoring.metrics.compute_dice",
        lambda **masks: seen.append(torch.get_num_threads()) or torch.ones(1, 1),
    )
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        score_masks(bar(1, 4), bar(2, 4), (1.0, 1.0), 1.0)
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)
    assert not recwarn.list
