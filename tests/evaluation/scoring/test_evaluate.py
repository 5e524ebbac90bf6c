"""Whole folders: formats, units, regions, and that one error lists everything and writes nothing."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.evaluation.scoring.evaluate import evaluate_folder
from nnunet_ssl.evaluation.scoring.results import read_rows
from tests.evaluation.scoring.folders import Folders, dataset_json, volume, write, write_json

OUTPUTS = ["evaluation.csv", "evaluation.json", "evaluation.md"]


def outputs(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("evaluation"))


def test_a_folder_of_predictions(tmp_path):
    folders = Folders(tmp_path, cases=("a",))
    worse = volume(1)
    worse[worse == 2] = 0
    folders.add("b", volume(1), worse, spacing=(3.0, 2.0, 0.5))
    evaluation = evaluate_folder(*folders.paths, processes=1)
    assert [(r["case"], r["class"], r["status"]) for r in evaluation.rows] == [
        ("a", "ball", "ok"),
        ("a", "box", "ok"),
        ("b", "ball", "ok"),
        ("b", "box", "missed"),
    ]
    assert evaluation.rows[3]["assd"] == pytest.approx(np.linalg.norm([18, 16, 5]))
    assert evaluation.unit == "mm"
    assert outputs(folders.predictions) == OUTPUTS
    table = read_rows(str(folders.predictions / "evaluation.csv"))
    for name in ("dice", "jaccard", "hd95", "asd", "assd", "nsd"):
        assert table[name].tolist() == [row[name] for row in evaluation.rows]
    content = json.loads((folders.predictions / "evaluation.json").read_text())
    assert (content["reference"], content["prediction"]) == folders.paths
    assert content["classes"]["box"]["counts"]["missed"] == 1


def test_a_rerun_gives_the_same_and_takes_no_output_for_a_prediction(tmp_path):
    folders = Folders(tmp_path)
    first = evaluate_folder(*folders.paths, processes=1)
    contents = {name: (folders.predictions / name).read_bytes() for name in OUTPUTS}
    assert evaluate_folder(*folders.paths, processes=1).rows == first.rows
    assert {name: (folders.predictions / name).read_bytes() for name in OUTPUTS} == contents


def test_results_elsewhere(tmp_path):
    folders = Folders(tmp_path)
    evaluate_folder(*folders.paths, str(tmp_path / "new" / "folder"), processes=1)
    assert outputs(tmp_path / "new" / "folder") == OUTPUTS
    assert outputs(folders.predictions) == []


def test_voxels_in_place_of_millimetres(tmp_path):
    folders = Folders(tmp_path, cases=())
    reference, prediction = np.zeros((2, 4, 5, 6), np.uint8)
    reference[0, 0, 0], prediction[0, 0, 4], reference[1, 1, 1] = 1, 1, 2
    folders.add("a", reference, prediction, spacing=(3.0, 2.0, 0.5))
    millimetres = evaluate_folder(*folders.paths, processes=1, tolerance=3.0)
    voxels = evaluate_folder(*folders.paths, processes=1, tolerance=3.0, voxel=True)
    assert [row["hd95"] for row in millimetres.rows] == pytest.approx([2.0, np.linalg.norm([12, 10, 3])])
    assert [row["hd95"] for row in voxels.rows] == pytest.approx([4.0, np.linalg.norm([4, 5, 6])])
    assert [row["nsd"] for row in millimetres.rows] == [1, 0]
    assert [row["nsd"] for row in voxels.rows] == [0, 0]
    assert (millimetres.unit, voxels.unit) == ("mm", "voxel")
    assert json.loads((folders.predictions / "evaluation.json").read_text())["unit"] == "voxel"
    assert "convention of many tables" in (folders.predictions / "evaluation.md").read_text()


def test_regions_and_ignore_label(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    folders = Folders(tmp_path, cases=(), labels=labels, regions_class_order=[1, 2])
    reference, prediction = volume(), volume()
    reference[:, 0], prediction[:, 0] = 3, 1
    prediction[prediction == 2] = 1
    folders.add("a", reference, prediction)
    rows = evaluate_folder(*folders.paths, processes=1).rows
    assert [(r["class"], r["label"], r["status"], r["dice"]) for r in rows] == [
        ("whole", "1+2", "ok", 1.0),
        ("core", 2, "missed", 0.0),
    ]
    assert read_rows(str(folders.predictions / "evaluation.csv"))["label"].tolist() == ["1+2", "2"]


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".tif", ".tiff"])
def test_every_ending_of_volumes(tmp_path, ending):
    folders = Folders(tmp_path, cases=(), ending=ending)
    reference, prediction = np.zeros((2, 5, 6, 7), np.uint8)
    reference[1, 1, 1], prediction[1, 4, 1] = 1, 1
    folders.add("a", reference, prediction, spacing=(3.0, 2.0, 0.5))
    evaluation = evaluate_folder(*folders.paths, processes=1)
    assert evaluation.rows[0]["hd95"] == pytest.approx(6.0)
    assert (evaluation.unit, evaluation.notes) == ("mm", [])
    if ending.startswith(".tif"):  # without the file that tells the spacing
        (folders.references / "a.json").unlink()
        evaluation = evaluate_folder(*folders.paths, processes=1)
        assert (evaluation.rows[0]["hd95"], evaluation.unit) == (3.0, "voxel")
        assert "do not state a spacing" in evaluation.to_markdown()


@pytest.mark.parametrize(
    ("ending", "expected", "unit"),
    [
        (".nii.gz", 6.0, "mm"),
        (".mha", 6.0, "mm"),
        (".png", 3.0, "voxel"),
        (".bmp", 3.0, "voxel"),
        (".tif", 3.0, "voxel"),
    ],
)
def test_every_ending_of_flat_images(tmp_path, ending, expected, unit):
    folders = Folders(tmp_path, cases=(), ending=ending)
    reference, prediction = np.zeros((2, 6, 7), np.uint8)
    reference[1, 1], prediction[4, 1], reference[5, 5] = 1, 1, 2
    folders.add("a", reference, prediction, spacing=(2.0, 0.5))
    evaluation = evaluate_folder(*folders.paths, processes=1)
    diagonal = np.hypot(12, 3.5) if unit == "mm" else np.hypot(6, 7)
    assert [row["hd95"] for row in evaluation.rows] == pytest.approx([expected, diagonal])
    assert evaluation.unit == unit
    assert bool(evaluation.notes) == (unit == "voxel")


def test_a_few_stacks_without_spacing_are_named(tmp_path):
    folders = Folders(tmp_path, cases=(), ending=".tif")
    folders.add("a", volume(), spacing=(3.0, 2.0, 0.5))
    folders.add("b", volume())
    evaluation = evaluate_folder(*folders.paths, processes=1)
    assert evaluation.unit == "mm"
    assert evaluation.notes == ["No spacing is known for b; 1 mm was assumed, as nnU-Net does."]


def test_a_class_that_nobody_has(tmp_path):
    folders = Folders(tmp_path, labels={"background": 0, "ball": 1, "box": 2, "rare": 3})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation = evaluate_folder(*folders.paths, processes=1)
    assert evaluation.classes["rare"]["counts"]["true_negative"] == 2
    assert np.isnan(evaluation.classes["rare"]["dice"]["mean"])
    assert evaluation.mean["dice"] == 1.0


def test_the_validation_folder_of_a_fold(tmp_path):
    folders = Folders(tmp_path, cases=("a", "b", "c"))
    model = tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    validation = model / "fold_0" / "validation"
    validation.parent.mkdir(parents=True)
    folders.predictions.rename(validation)
    (validation / "c.nii.gz").unlink()
    write_json(model / "dataset.json", dataset_json())
    write_json(model / "plans.json", {"plans_name": "nnUNetPlans", "configurations": {}})
    entries = [{"prediction_file": str(validation / f"{case}.nii.gz")} for case in "ab"]
    write_json(validation / "summary.json", {"metric_per_case": entries})
    evaluation = evaluate_folder(str(folders.references), str(validation), processes=1)
    assert [row["case"] for row in evaluation.rows] == ["a", "a", "b", "b"]


def test_one_error_lists_every_bad_case_and_nothing_is_written(tmp_path):
    folders = Folders(tmp_path, cases=("good", "missing", "truncated", "shape", "turned", "labels"))
    (folders.predictions / "missing.nii.gz").unlink()
    noise = np.random.default_rng(0).integers(0, 2, (20, 20, 20)).astype(np.uint8)
    folders.add("truncated", noise)
    damaged = folders.predictions / "truncated.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    write(folders.predictions / "shape.nii.gz", volume(3)[:, :, 1:])
    write(folders.predictions / "turned.nii.gz", volume(4), direction=np.diag([1, -1, -1]))
    write(folders.predictions / "labels.nii.gz", volume(5) * 7)
    write(folders.predictions / "extra.nii.gz", volume())
    before = sorted(path.name for path in folders.predictions.iterdir())
    with pytest.raises(SemiSupervisedError) as caught:
        evaluate_folder(*folders.paths, str(tmp_path / "results"), processes=1)
    lines = [line for line in str(caught.value).splitlines() if line.startswith("  - ")]
    for line, expected in zip(
        lines,
        [
            "missing: no prediction",
            "extra: unexpected prediction",
            "labels: the prediction labels.nii.gz has labels that dataset.json does not name: 7, 14",
            "shape: the prediction shape.nii.gz lies on another grid: 9 x 8 x 6 voxels",
            "truncated: the prediction truncated.nii.gz is truncated",
            "turned: the prediction turned.nii.gz lies on another grid: direction",
        ],
        strict=True,
    ):
        assert line.removeprefix("  - ").startswith(expected)
    assert "nothing was written" in str(caught.value)
    assert not (tmp_path / "results").exists()
    assert sorted(path.name for path in folders.predictions.iterdir()) == before
    assert {r["case"] for r in evaluate_folder(*folders.paths, processes=1, cases=["good"]).rows} == {"good"}


def test_arguments_that_cannot_be_used(tmp_path):
    folders = Folders(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SemiSupervisedError) as caught:
        evaluate_folder("no/labels", "no/predictions", str(tmp_path / "file" / "x"), tolerance=np.nan, processes=0)
    for text in (
        "no/labels is not a folder",
        "no/predictions is not a folder",
        "tolerance",
        "processes",
        "cannot be written",
    ):
        assert text in str(caught.value)
    with pytest.raises(SemiSupervisedError, match="tolerance must be a number of at least 0, got -1"):
        evaluate_folder(*folders.paths, tolerance=-1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_folder_without_the_right_to_write(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(SemiSupervisedError, match="not writable"):
        evaluate_folder(*Folders(tmp_path).paths, str(tmp_path / "locked"))
