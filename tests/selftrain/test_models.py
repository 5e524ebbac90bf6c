"""What nnU-Net is asked to train: seeds, checkpoints, folds, fine-tuning, lengths, shared results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_ssl.evaluation.benchmark.expand import prepare
from nnunet_ssl.evaluation.benchmark.manifest import Experiment, Manifest
from nnunet_ssl.evaluation.benchmark.results import fold_folder
from nnunet_ssl.selftrain.keys import Keys
from nnunet_ssl.selftrain.models import fine_rate
from nnunet_ssl.selftrain.train import CHECKPOINTS, command_of
from tests.selftrain.fakes import WORDS, Place, run

LONG = ("--training", "num_epochs=10", "num_iterations_per_epoch=10", "initial_lr=0.02", "seed=5")
ANY = ("--select", "none", "--rounds", "1")


def trained(place: Place) -> dict[str, dict]:
    """Step -> "training" of the plans that it was trained with."""
    keys = Keys(place.settled())
    found = {}
    for step in keys.steps.values():
        if step.kind in ("train", "finetune", "control"):
            training = keys.training(step)
            file = place.base.parent / training.dataset / f"{training.plans}.json"
            found[step.id] = json.loads(file.read_text())["nnunet_ssl"]["training"]
    return found


def predicted_with(place: Place) -> list[str]:
    lines = [line.split() for line in place.calls() if line.startswith("nnUNetv2_predict")]
    return [line[line.index("-chk") + 1] for line in lines]


def test_seeds_count_on_from_the_first(place: Place, capsys):
    assert run(place, *WORDS, *LONG, *ANY) == 0
    seeds = {step: values["seed"] for step, values in trained(place).items()}
    assert seeds == {"round0__train__0": 5, "round0__train__1": 6, "round1__train__0": 5, "round1__control": 5}
    epochs = {step: values["num_epochs"] for step, values in trained(place).items()}
    assert epochs == {"round0__train__0": 10, "round0__train__1": 10, "round1__train__0": 10, "round1__control": 20}
    assert predicted_with(place) == ["checkpoint_final.pth"] * 2


def test_checkpoints_of_one_training_at_60_80_and_100_percent(place: Place, capsys):
    assert run(place, *WORDS, *LONG, *ANY, "--teachers", "checkpoints", "--n-teachers", "3") == 0
    assert predicted_with(place) == ["checkpoint_epoch_6.pth", "checkpoint_epoch_8.pth", "checkpoint_final.pth"]
    assert trained(place)["round0__train__0"]["kept_epochs"] == [6, 8]
    assert "kept_epochs" not in trained(place)["round1__train__0"]  # which teaches nobody
    assert [*trained(place)] == ["round0__train__0", "round1__train__0", "round1__control"]


def test_folds_teach_together_and_the_report_warns(place: Place, capsys):
    from nnunet_ssl.data.split_making import create_splits

    cases = [f"tiny_{i:03d}" for i in range(6)]
    folds = [{"train": [c for c in cases if c not in val], "val": val} for val in (cases[:2], cases[2:4])]
    (place.base / "splits_final.json").write_text(json.dumps(folds))
    (place.base / "splits_ssl.json").unlink()
    create_splits("Dataset901_Tiny", counts=[2])
    words = [word for word in WORDS if word not in ("--n-teachers", "2")]
    assert run(place, *words, *ANY, "--teachers", "folds", "-f", "1") == 0
    keys = Keys(place.settled())
    assert [keys.training(step).fold for step in keys.steps.values() if step.kind == "train"] == [0, 1, 1]
    assert "Optimistic: with teachers of several folds" in capsys.readouterr().err
    assert json.loads((place.out / "selftrain.json").read_text())["warnings"][0].startswith("Optimistic")


@pytest.mark.parametrize("mode", ["pretrain", "joint-finetune"])
def test_fine_tuning_on_the_labelled_cases(place: Place, capsys, mode: str):
    """A fifth of the epochs at a tenth of the rate, from the student's weights; the fine-tuned ones teach."""
    assert run(place, *WORDS, *LONG, "--select", "none", "--rounds", "2", "--mode", mode) == 0
    values = trained(place)["round1__finetune__1"]
    assert (values["num_epochs"], values["seed"]) == (2, 6) and values["initial_lr"] == pytest.approx(0.002)
    line = next(c for c in place.calls() if "-pretrained_weights" in c).split()
    assert line[1] == "Dataset901_Tiny" and "/Dataset902_Tiny_selftrain_1/" in line[-1]
    second = [c.split() for c in place.calls() if c.startswith("nnUNetv2_predict")][2]
    assert second[second.index("-d") + 1] == "Dataset901_Tiny" and "_fine_s5_" in second[second.index("-p") + 1]
    assert (place.out / "jobs" / "round1__finetune__0" / "evaluation.csv").exists()
    assert not (place.out / "jobs" / "round1__train__0" / "evaluation.csv").exists()


def test_a_tenth_of_the_rate():
    assert fine_rate({}) == pytest.approx(0.001)  # of nnU-Net's own
    assert fine_rate({"initial_lr": 0.003}) == pytest.approx(0.0003)


def test_students_may_begin_with_the_previous_weights(place: Place, capsys):
    assert run(place, *WORDS, *ANY, "--from", "previous") == 0
    (line,) = (c for c in place.calls() if "-pretrained_weights" in c)
    assert "selftrain_1" in line.split()[1] and "/Dataset901_Tiny/" in line.split()[-1] and "_s0_" in line.split()[-1]
    keys = Keys(place.settled())
    student = keys.training(keys.steps["round1__train__0"])
    for name in CHECKPOINTS:  # killed: with --c once there is something to continue, and else as in the beginning
        Path(fold_folder(student), name).unlink(missing_ok=True)
    assert command_of(student, "cpu") == line.split()
    Path(fold_folder(student), "checkpoint_latest.pth").touch()
    assert command_of(student, "cpu") == [*line.split()[:-2], "--c"]


def test_no_rounds_are_the_control(place: Place, capsys):
    """The very training that a benchmark would run as its control: neither repeats the other's."""
    assert run(place, *WORDS, "--rounds", "0") == 0
    assert [*Keys(place.settled()).steps] == ["round0__train__0", "round0__train__1"]
    assert {line.split()[0] for line in place.calls()} == {"nnUNetv2_train"}
    training = {"num_epochs": 2, "num_iterations_per_epoch": 10}
    experiment = Experiment(
        "901", ("3d_fullres",), ("nnUNetTrainerSupervised",), ("n2",), seeds=(0, 1), training=training
    )
    for image in (place.raw / "imagesUn").iterdir():
        image.unlink()
    _, jobs = prepare(Manifest((experiment,), "cpu"), str(place.root / "benchmark"))
    keys = Keys(place.settled())
    assert [job.plans for job in jobs] == [keys.training(step).plans for step in keys.steps.values()]


def test_small_students(place: Place, capsys):
    """--student-plans: from the first round on; the control and the first teachers keep theirs."""
    plans = json.loads((place.base / "nnUNetPlans.json").read_text())
    plans["plans_name"] = "small"
    (place.base / "small.json").write_text(json.dumps(plans))
    assert run(place, *WORDS, *ANY, "--student-plans", "small") == 0
    keys = Keys(place.settled())
    names = {step.id: keys.training(step).plans.split("_s")[0] for step in keys.steps.values() if step.epochs}
    assert names == {
        "round0__train__0": "nnUNetPlans_n2",
        "round0__train__1": "nnUNetPlans_n2",
        "round1__train__0": "small",
        "round1__control": "nnUNetPlans_n2",
    }
    plans["configurations"]["3d_fullres"]["batch_size"] = 7  # planned anew
    (place.base / "small.json").write_text(json.dumps(plans))
    calls = len(place.calls())
    assert run(place, *WORDS, *ANY, "--student-plans", "small") == 0
    assert [line.split()[0] for line in place.calls()[calls:]][-2:] == ["nnUNetv2_preprocess", "nnUNetv2_train"]
    students = place.base.parent / place.settled().student_dataset(1)
    assert json.loads((students / "small.json").read_text())["configurations"]["3d_fullres"]["batch_size"] == 7
