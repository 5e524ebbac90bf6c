"""From a manifest to jobs and plans copies; everything that would stop a job is found before."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nnunet_ssl.data.split_making import create_splits
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.evaluation.benchmark.expand import prepare
from nnunet_ssl.evaluation.benchmark.manifest import Experiment, Manifest
from tests.evaluation.benchmark.fakes import CONTROL, DATASET, MEAN_TEACHER, SKCDF, Place
from tests.helpers_splits import edit
from tests.running import CASES

EXPERIMENT = Experiment("901", ("3d_fullres",), (MEAN_TEACHER, SKCDF), ("n2",), training={"num_epochs": 2})


def jobs_of(place: Place, **changes: Any):
    return prepare(Manifest((replace(EXPERIMENT, **changes),), "cpu"), str(place.out))[1]


def plans_of(place: Place, **changes: Any) -> dict[str, str]:
    return {job.trainer: job.plans for job in jobs_of(place, **changes)}


def faults(place: Place, **changes: Any) -> str:
    before = sorted(place.root.rglob("*"))
    with pytest.raises(SemiSupervisedError) as caught:
        jobs_of(place, **changes)
    assert sorted(place.root.rglob("*")) == before
    return str(caught.value)


def test_every_combination_with_the_control_first(place: Place):
    jobs = jobs_of(place, splits=("n2", "n3"), folds=(0, 1), seeds=(0, 5), configurations=("3d_fullres", "2d"))
    assert len({job.id for job in jobs}) == len(jobs) == 3 * 2 * 2 * 2 * 2
    assert [job.trainer for job in jobs[:3]] == [CONTROL, MEAN_TEACHER, SKCDF]
    assert jobs[0].id == f"{DATASET}__3d_fullres__{CONTROL}__n2__fold0__seed0"
    assert len({(job.configuration, job.split, job.fold, job.seed) for job in jobs[:3]}) == 1
    n3 = next(job for job in jobs if job.split == "n3")
    assert (n3.labeled, n3.withheld, n3.base_plans) == (3, 1, "nnUNetPlans")


def test_the_plans_carry_split_seed_and_the_settings_of_their_trainer(place: Place):
    own = {SKCDF: {"unsupervised_weight": 2.0}}
    jobs = jobs_of(place, hyperparameters=own, seeds=(7,))
    for job in jobs:
        plans = json.loads((place.base / f"{job.plans}.json").read_text())
        assert plans["plans_name"] == job.plans
        assert plans["nnunet_ssl"] == {**job.settings, "source": "nnUNetPlans"}
        assert job.settings["split"] == "n2" and job.settings["training"] == {"num_epochs": 2, "seed": 7}
        assert job.settings.get("hyperparameters", {}) == (own if job.trainer == SKCDF else {})
    control, teacher, skcdf = (job.plans for job in jobs)
    assert control == teacher != skcdf
    assert control.startswith("nnUNetPlans_n2_s7_") and len(control) == len("nnUNetPlans_n2_s7_") + 6


def test_a_length_variant_takes_the_hyperparameters_of_its_trainer(place: Place):
    (job,) = [
        job
        for job in jobs_of(place, trainers=(f"{SKCDF}_3epochs",), hyperparameters={SKCDF: {"unsupervised_weight": 2.0}})
        if job.trainer != CONTROL
    ]
    assert job.settings["hyperparameters"] == {SKCDF: {"unsupervised_weight": 2.0}}


def test_a_job_knows_the_length_of_its_training_run(place: Place):
    """The name wins, then the settings, then the trainer's own default, which is not 1000 for every preset."""
    names = (f"{SKCDF}_3epochs", f"{SKCDF}_paper", f"{SKCDF}_paper_7epochs", "nnUNetTrainerDualNetworks_released")

    def epochs(**changes: Any) -> list[int | None]:
        return [job.epochs for job in jobs_of(place, trainers=names, **changes)]

    assert epochs(training={}) == [1000, 3, 1500, 7, 24]
    assert epochs(training={"num_epochs": 2}) == [2, 3, 2, 7, 2]


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"num_epochs": 3}},
        {"seeds": (1,)},
        {"splits": ("n3",)},
        {"hyperparameters": {MEAN_TEACHER: {"ema_decay": 0.9}}},
    ],
)
def test_other_settings_are_other_plans_and_the_old_ones_stay(place: Place, changes: dict[str, Any]):
    before = plans_of(place)[MEAN_TEACHER]
    content = (place.base / f"{before}.json").read_bytes()
    assert plans_of(place, **changes)[MEAN_TEACHER] != before
    assert (place.base / f"{before}.json").read_bytes() == content
    assert plans_of(place)[MEAN_TEACHER] == before


def test_a_split_of_the_same_name_with_other_cases_is_another_plan(place: Place):
    before = plans_of(place)
    create_splits(DATASET, counts=[2], seed=3, overwrite=True)
    after = plans_of(place)
    assert before[CONTROL] != after[CONTROL] and before[CONTROL][:-6] == after[CONTROL][:-6]


def test_other_base_plans_of_the_same_name_are_another_plan(place: Place):
    before = plans_of(place)
    path = place.base / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    plans["configurations"]["3d_fullres"]["batch_size"] += 1
    path.write_text(json.dumps(plans))
    assert before[CONTROL] != plans_of(place)[CONTROL]


def test_hyperparameters_of_others_change_nothing_for_a_trainer(place: Place):
    before = plans_of(place)
    after = plans_of(place, hyperparameters={SKCDF: {"unsupervised_weight": 2.0}})
    assert before[MEAN_TEACHER] == after[MEAN_TEACHER] and before[SKCDF] != after[SKCDF]


def test_every_fault_at_once_and_nothing_written(place: Place, monkeypatch):
    monkeypatch.delenv("nnUNet_results")
    message = faults(
        place,
        trainers=("nnUNetTrainerNope", "nnUNetTrainer", MEAN_TEACHER),
        configurations=("3d_fullre",),
        splits=("n2", "n4", "l10", "own"),
        folds=(0, 2),
        training={"epochs": 3, "initial_lr": -1},
        hyperparameters={MEAN_TEACHER: {"nope": 1}, SKCDF: {"unsupervised_weight": 1.0}},
        test_images=str(place.root / "none"),
        test_labels=str(place.root),
    )
    for part in (
        "nnUNet_results is not set",
        'trainer "nnUNetTrainerNope": nnU-Net does not find it',
        'trainer "nnUNetTrainer": it does not read splits',
        "3d_fullre: no configuration of nnUNetPlans",
        "has no split n4, l10, own (it has: n2, n3)",
        "nnunet_ssl splits -d 901 --fractions 0.1 --counts 4 --labeled-from FILE (with own)",
        'split "n2" has no fold 2. Folds: 0, 1.',
        'unknown key "epochs" in "training"',
        "initial_lr = -1 must lie between",
        'unknown key "nope" in "hyperparameters" of nnUNetTrainerMeanTeacher',
        f'hyperparameters of "{SKCDF}", which is not among the trainers',
        f"test set: {place.root / 'none'} is not a folder",
    ):
        assert part in message
    assert message.count('unknown key "epochs"') == 1


def test_without_splits_the_command_is_named(place: Place):
    (place.base / "splits_ssl.json").unlink()
    assert "there is no splits_ssl.json yet -> nnunet_ssl splits -d 901 --counts 2" in faults(place)


def test_without_splits_and_with_few_cases_the_folds_are_named_too(place: Place):
    for name in ("splits_ssl.json", "splits_final.json"):
        (place.base / name).unlink(missing_ok=True)
    for case in CASES[3:]:
        for file in (place.base / "nnUNetPlans_3d_fullres").glob(f"{case}*"):
            file.unlink()
    message = faults(place)
    assert "3 labelled cases are too few for nnU-Net's 5 folds" in message
    assert "nnunet_ssl splits -d 901 --folds 3" in message and "nnunet_ssl splits -d 901 --counts 2" in message


def test_a_fold_without_validation_cases(place: Place):
    edit(place.base, lambda content: content["splits"]["n2"]["folds"][0].update(val=[]), rehash=True)
    assert 'fold 0 of split "n2": no validation case -> ' in faults(place)


def test_a_dataset_that_is_not_there(place: Place):
    message = faults(place, dataset="77", trainers=("nnUNetTrainerNope",))
    assert "There is no dataset 77" in message and "nnUNetTrainerNope" in message


def test_plans_that_are_not_there(place: Place):
    assert "nnUNetResEncUNetMPlans.json does not exist" in faults(place, plans="nnUNetResEncUNetMPlans")


def test_missing_preprocessed_data(place: Place):
    for file in (place.base / "nnUNetPlans_3d_fullres").iterdir():
        file.unlink()
    message = faults(place)
    assert "3d_fullres labelled: not preprocessed -> nnUNetv2_preprocess -d 901 -c 3d_fullres" in message


def test_missing_references_of_validation_cases(place: Place):
    (place.base / "gt_segmentations" / "tiny_001.nii.gz").unlink()
    assert "lacks the labels of tiny_001" in faults(place)


def test_what_a_trainer_refuses_is_said_before(make_dataset, place: Place):
    path = place.base / "dataset.json"
    content = json.loads(path.read_text())
    content["labels"] = {"background": 0, "whole": [1, 2], "box": 2}
    content["regions_class_order"] = [1, 2]
    path.write_text(json.dumps(content))
    assert "nnUNetTrainerSKCDF does not support region-based training" in faults(place)


def test_a_fold_without_any_unlabelled_image(place: Place):
    create_splits(DATASET, fractions=[1.0])
    message = faults(place, splits=("l100",))
    assert f"{MEAN_TEACHER} has nothing to learn from" in message and f"{CONTROL} has" not in message


def test_a_test_set_with_a_label_too_few(place: Place):
    images, labels = place.root / "imagesTs", place.root / "labelsTs"
    for folder, names in ((images, ("a_0000", "b_0000")), (labels, ("a", "c"))):
        folder.mkdir()
        for name in names:
            (folder / f"{name}.nii.gz").touch()
    message = faults(place, test_images=str(images), test_labels=str(labels))
    assert f"{labels} has no label for b" in message and f"{images} has no image for c" in message


def test_an_output_folder_that_cannot_be(place: Place):
    place.out.write_text("a file")
    assert f"{place.out} cannot be made, because {place.out} is a file" in faults(place)


def test_a_preprocessed_folder_that_cannot_be_written_to(place: Place, monkeypatch):
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(place.base) and real(path, mode))
    assert f"{place.base} cannot be written to, but the plans" in faults(place)
    monkeypatch.undo()


def test_two_entries_for_the_same_jobs(place: Place):
    twice = (EXPERIMENT, replace(EXPERIMENT, training={"num_epochs": 9}))
    with pytest.raises(SemiSupervisedError, match="2 entries of the manifest lead to this job"):
        prepare(Manifest(twice, "cpu"), str(place.out))


def test_a_plans_copy_edited_by_hand_is_not_replaced(place: Place):
    (name,) = set(plans_of(place).values())
    path = Path(place.base / f"{name}.json")
    path.write_text(path.read_text().replace('"num_epochs": 2', '"num_epochs": 3'))
    with pytest.raises(SemiSupervisedError, match="exists with other content"):
        jobs_of(place)
