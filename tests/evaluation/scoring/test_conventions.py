"""The conventions of the papers' tables, on masks whose numbers can be worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import ndimage

from nnunet_ssl.cli import main
from nnunet_ssl.evaluation.scoring.conventions import CONVENTIONS
from nnunet_ssl.evaluation.scoring.definitions import METRICS
from nnunet_ssl.evaluation.scoring.evaluate import evaluate_folder
from nnunet_ssl.evaluation.scoring.metrics import pooled_hd95
from nnunet_ssl.evaluation.scoring.scores import score_pair
from tests.evaluation.scoring.folders import Folders

NAN = math.nan


def bar(first: int, last: int) -> np.ndarray:
    """One row of pixels in 2D: all of them surface, distances are steps along the row."""
    mask = np.zeros((3, 40), bool)
    mask[1, first : last + 1] = True
    return mask


def scored(reference: np.ndarray, prediction: np.ndarray, name: str) -> dict[str, float]:
    return score_pair(reference, prediction, (1.0, 1.0), 1.0, 99.0, CONVENTIONS[name])


@pytest.mark.parametrize("name", CONVENTIONS)
def test_two_bars(name):
    reference, prediction = bar(0, 9), bar(5, 24)  # 10 and 20 pixels, 5 in common
    expected = {
        "dice": 10 / 30,
        "jaccard": 5 / 25,
        # the prediction's pixels are 0 (five times), 1 .. 15 away, the reference's 0 (five times), 1 .. 5
        "asd": sum(range(16)) / 20,
        "hd95": np.percentile([*[0] * 10, *range(1, 16), *range(1, 6)], 95),
    }
    found = scored(reference, prediction, name)
    for metric in METRICS:
        reported = metric in CONVENTIONS[name].reported
        assert found[metric] == pytest.approx(expected[metric] if reported else NAN, nan_ok=True), metric
    own = score_pair(reference, prediction, (1.0, 1.0), 1.0, 99.0)
    assert own["hd95"] == pytest.approx(np.percentile([*[0] * 5, *range(1, 16)], 95))  # the larger of the two


def test_pooled_distances_as_medpy_takes_them():
    rng = np.random.default_rng(0)
    first, second = (ndimage.gaussian_filter(rng.normal(size=(12, 14, 10)), 2) > 0.02 for _ in range(2))
    both = []
    for one, other in ((first, second), (second, first)):
        borders = [mask ^ ndimage.binary_erosion(mask) for mask in (one, other)]
        both.append(ndimage.distance_transform_edt(~borders[1])[borders[0]])
    assert pooled_hd95(first, second) == pytest.approx(np.percentile(np.hstack(both), 95))


# missed, false positive, nothing on either side
EMPTIES = {
    "skcdf": [{"dice": 0.0, "asd": 128.0}, {"dice": 0.0, "asd": 128.0}, {"dice": 0.01, "asd": 0.0}],
    "uamt": [dict.fromkeys(("dice", "jaccard", "hd95", "asd"), 0.0), {"dice": 0.0, "jaccard": 0.0}],
    "plgcl": [{"dice": 0.0}, {"dice": 0.0}, {}],
    "cmaformer": [{"dice": 0.0}, {"dice": 0.0}, {"dice": 1.0}],
}
EMPTIES["uamt"].append(EMPTIES["uamt"][0])


@pytest.mark.parametrize("name", CONVENTIONS)
def test_empty_masks(name):
    full, nothing = bar(3, 8), np.zeros_like(bar(3, 8))
    pairs = [(full, nothing), (nothing, full), (nothing, nothing)]
    statuses = ["missed", "false_positive", "true_negative"]
    for (reference, prediction), status, expected in zip(pairs, statuses, EMPTIES[name], strict=True):
        found = scored(reference, prediction, name)
        assert found["status"] == status
        for metric in METRICS:
            assert found[metric] == pytest.approx(expected.get(metric, NAN), nan_ok=True), (status, metric)


def stack(*slices: str) -> np.ndarray:
    """Slices of 4 x 4 by name: "full" 16 voxels of class 1, "half" the upper 8 of them, "none"."""
    shapes = {"full": 4, "half": 2, "none": 0}
    labels = np.zeros((len(slices), 4, 4), np.uint8)
    for plane, name in zip(labels, slices, strict=True):
        plane[: shapes[name]] = 1
    return labels


def test_slices_count_one_by_one(tmp_path):
    folders = Folders(tmp_path, cases=())
    cases = {
        "a": (stack("full", "none", "half", "none"), stack("half", "none", "none", "half")),
        "b": (stack("half", "none"), stack("half", "none")),
    }
    for case, (reference, prediction) in cases.items():
        folders.add(case, reference, prediction)
    found = evaluate_folder(*folders.paths, convention="cmaformer", processes=1)
    values = {row["case"]: row["dice"] for row in found.rows if row["class"] == "ball"}
    assert values == pytest.approx({"a:0": 2 / 3, "a:1": 1, "a:2": 0, "a:3": 0, "b:0": 1, "b:1": 1})
    assert found.classes["ball"]["dice"]["mean"] == pytest.approx((2 / 3 + 3) / 6)
    assert found.classes["box"]["dice"]["mean"] == 1.0  # in no slice


def test_spacing_is_one_and_the_output_names_the_convention(tmp_path, capsys):
    folders = Folders(tmp_path, cases=())
    reference, prediction = (np.zeros((3, 8, 8), np.uint8) for _ in range(2))
    reference[1, 2:6, 2:6], prediction[1, 2:6, 3:7] = 1, 1
    folders.add("a", reference, prediction, spacing=(9.0, 3.0, 3.0))
    words = ["evaluate", "-ref", str(folders.raw / "labelsTr"), "-pred", str(folders.predictions), "-np", "1"]
    assert main([*words, "--cases", "a", "--convention", "skcdf"]) == 0
    content = json.loads((folders.predictions / "evaluation.json").read_text())
    assert (content["convention"], content["unit"]) == ("skcdf", "voxel")
    ball, box = content["cases"]
    assert ball["asd"] == pytest.approx(4 / 16)  # one column of four is a voxel away, not 3 mm
    assert (box["dice"], box["asd"], box["hd95"]) == (0.01, 0.0, None)
    assert "hd95" not in content["definitions"] and "nsd" not in content["definitions"]
    page = (folders.predictions / "evaluation.md").read_text()
    assert "Scored by the convention **skcdf**: skcdf: tables of SKCDF and DHC" in page
    assert "count as the convention says" in capsys.readouterr().out
