"""The students' dataset: what nnU-Net reads of it, and that it is the right one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_ssl.data.split_making import create_splits
from nnunet_ssl.evaluation.benchmark import job_run
from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.settings import SelfTraining
from nnunet_ssl.selftrain.student_dataset import dataset_json, folds
from tests.integration.commands import segmentation
from tests.running import CASES
from tests.selftrain import fake_nnunet
from tests.selftrain.fakes import TRAINING, Place, command_here, install, make_place, run
from tests.selftrain.nnunet_here import run_here, threads
from tests.tiny import Tiny, case_arrays

STUDENTS = "Dataset902_Tiny_selftrain_1"
WORDS = ("-d", "901", "-c", "3d_fullres", "--split", "n2", "-device", "cpu", "--rounds", "1", *TRAINING)
ONE_TEACHER = (*WORDS, "--n-teachers", "1", "--select", "none")
DATA = ("nnUNetv2_extract_fingerprint", "nnUNetv2_move_plans_between_datasets", "nnUNetv2_preprocess")


def with_real_data(command, log, *rest):
    """nnU-Net's own commands for data, played ones for training and prediction."""
    if command[0] not in DATA:
        return command_here(command, log, *rest)
    run_here(command)
    return 0


def test_a_perfect_teacher_gives_the_fully_labelled_dataset(place: Place, monkeypatch, capsys):
    """Its predictions are the labels: after nnU-Net's preprocessing every array is that of the labelled dataset."""
    shutil.rmtree(place.raw / "imagesUn")
    monkeypatch.setattr(job_run, "run_command", with_real_data)
    assert run(place, *ONE_TEACHER) == 0
    students, labeled = (
        place.root / "nnUNet_preprocessed" / name / "nnUNetPlans_3d_fullres" for name in (STUDENTS, place.base.name)
    )
    assert sorted(nnUNetDatasetBlosc2.get_identifiers(str(students))) == CASES
    first, second = nnUNetDatasetBlosc2(str(students), CASES), nnUNetDatasetBlosc2(str(labeled), CASES)
    for case in CASES:
        (image, label, _, properties), (image_2, label_2, _, properties_2) = map(
            lambda data, case=case: data.load_case(case), (first, second)
        )
        assert np.array_equal(image[:], image_2[:]) and np.array_equal(label[:], label_2[:])
        assert label[:].max() == 2
        locations, locations_2 = properties["class_locations"], properties_2["class_locations"]
        assert all(np.array_equal(locations[key], locations_2[key]) for key in locations_2)
    raw = place.root / "nnUNet_raw" / STUDENTS
    content = json.loads((raw / "dataset.json").read_text())
    assert content["numTraining"] == len(content["dataset"]) == 6
    assert [*content["dataset"]] == CASES
    for case, entry in content["dataset"].items():
        assert all(os.path.isabs(file) for file in (*entry["images"], entry["label"]))
        hidden = case in CASES[2:5]
        assert ("round_1/labels" in entry["label"]) == hidden and ("labelsTr" in entry["label"]) != hidden
    assert {path.name for path in raw.iterdir()} == {"dataset.json"}  # nothing is copied
    with threads():
        verify_dataset_integrity(str(raw), 1)
    plans = json.loads((students.parent / "nnUNetPlans.json").read_text())
    assert plans["dataset_name"] == STUDENTS and "split" not in plans.get("nnunet_ssl", {})


def test_folds_hold_repeated_labels_and_kept_cases(place: Place, capsys):
    """2 labelled and 6 kept cases, half of the draws labelled: 3 times each."""
    assert run(place, *ONE_TEACHER) == 0
    (fold,) = json.loads((place.root / "nnUNet_preprocessed" / STUDENTS / "splits_final.json").read_text())
    kept = ["extra_000", "extra_001", "extra_002", *CASES[2:5]]
    assert fold == {"train": sorted([*CASES[:2] * 3, *kept]), "val": CASES[5:], "repeats": True}


@pytest.mark.parametrize(
    ("options", "train"),
    [
        (("--mode", "pretrain"), ["tiny_002", "tiny_003", "tiny_004"]),
        (("--labeled-share", "0"), CASES[:5]),
        (("--labeled-share", "0.75"), sorted([*CASES[:2] * 5, *CASES[2:5]])),  # 3 * 3 / 2 = 4.5
    ],
)
def test_what_students_draw(place: Place, capsys, options, train):
    shutil.rmtree(place.raw / "imagesUn")
    assert run(place, *ONE_TEACHER, *options) == 0
    (fold,) = json.loads((place.root / "nnUNet_preprocessed" / STUDENTS / "splits_final.json").read_text())
    assert fold["train"] == train


def test_uncertain_voxels_get_the_ignore_label(place: Place, capsys):
    """Where the two teachers differ; the label is nnU-Net's, one above the highest."""
    words = (*WORDS, "--n-teachers", "2", "--select", "none", "--voxels", "ignore", "--voxel-confidence", "0")
    assert run(place, *words) == 0
    content = json.loads((place.root / "nnUNet_raw" / STUDENTS / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "ball": 1, "box": 2, "ignore": 3}
    round_1 = place.out / "round_1"
    for case in ("tiny_002", "extra_001"):
        first, second, label = (
            segmentation(round_1 / folder / f"{case}.nii.gz") for folder in ("teacher_0", "teacher_1", "labels")
        )
        differ = first != second
        assert np.array_equal(label == 3, differ) and np.array_equal(label[~differ], first[~differ])
    assert (segmentation(round_1 / "teacher_0" / "tiny_002.nii.gz") != segmentation(
        round_1 / "teacher_1" / "tiny_002.nii.gz")).any()  # fmt: skip


def test_a_dataset_with_an_ignore_label_lends_it(make_dataset, monkeypatch, capsys):
    labels = {"background": 0, "ball": 1, "box": 2, "ignore": 3}
    place = make_place(make_dataset(preprocess=False, labels=labels))
    install(monkeypatch.setattr)
    words = ("--n-teachers", "2", "--select", "none", "--voxels", "ignore", "--voxel-confidence", "0")
    assert run(place, *WORDS, *words) == 0
    assert json.loads((place.root / "nnUNet_raw" / STUDENTS / "dataset.json").read_text())["labels"] == labels
    selection = pd.read_csv(place.out / "round_1" / "selection.csv").set_index("case")
    label = segmentation(place.out / "round_1" / "labels" / "extra_001.nii.gz")
    assert selection.loc["extra_001", "ignored"] == pytest.approx((label == 3).mean()) and (label == 3).any()


def test_folds_of_several_teachers_keep_their_numbers(place: Place):
    """What is labelled or validated in any fold in use is no pseudo case; each fold keeps its own cases."""
    cases = [{"train": [c for c in CASES if c not in val], "val": val} for val in (CASES[:1], CASES[1:2])]
    (place.base / "splits_final.json").write_text(json.dumps(cases))
    (place.base / "splits_ssl.json").unlink()
    create_splits("Dataset901_Tiny", counts=[2])
    settings = SelfTraining(
        "Dataset901_Tiny", "3d_fullres", split="n2", fold=1, teachers="folds", n_teachers=2, datasets=(STUDENTS,)
    )
    run_of = Run(str(place.out), settings)
    hidden = set(run_of.folds[0].unlabeled) & set(run_of.folds[1].unlabeled)
    assert run_of.withheld == sorted(hidden) and 1 <= len(hidden) < 3
    assert not set(run_of.withheld) & {*CASES[:2], *run_of.folds[0].labeled, *run_of.folds[1].labeled}
    file = Path(run_of.selection_file(1))
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"cases": [{"case": case, "kept": True} for case in run_of.pool]}))
    made = folds(run_of, 1)
    assert [fold["val"] for fold in made] == [CASES[:1], CASES[1:2]]
    for fold, own in zip(made, run_of.folds.values(), strict=True):
        assert set(fold["train"]) == {*own.labeled, *run_of.pool} and not set(fold["train"]) & set(fold["val"])
    content = dataset_json(run_of, 1, [*run_of.pool])
    assert set(content["dataset"]) == {*run_of.labeled, *run_of.pool}


def test_withheld_labels_are_never_read(place: Place, monkeypatch, capsys):
    """Garbage in their place ends no step, and the students' data hold the pseudo-labels."""
    hidden = place.root / "hidden"
    for file in (place.raw / "labelsTr").iterdir():
        shutil.copy(file, hidden)
    for case in CASES[2:5]:
        files = [place.raw / "labelsTr" / f"{case}.nii.gz", place.base / "gt_segmentations" / f"{case}.nii.gz"]
        for file in (*files, *(place.base / "nnUNetPlans_3d_fullres").glob(f"{case}*")):
            file.write_bytes(b"garbage")
    shutil.rmtree(place.raw / "imagesUn")
    monkeypatch.setattr(job_run, "run_command", with_real_data)
    monkeypatch.setattr(fake_nnunet, "reference", lambda name: hidden / name)
    assert run(place, *ONE_TEACHER) == 0
    data = nnUNetDatasetBlosc2(
        str(place.root / "nnUNet_preprocessed" / STUDENTS / "nnUNetPlans_3d_fullres"), CASES[2:3]
    )
    _, label, _, properties = data.load_case("tiny_002")
    assert np.array_equal(label[0], case_arrays(Tiny(), 2)[1])
    assert len(properties["class_locations"][1]) > 100
