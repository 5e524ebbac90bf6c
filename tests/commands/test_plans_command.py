"""`nnunet_ssl plans` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_ssl.cli import main
from tests.helpers_splits import make_planned


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Path:
    base = make_planned(tmp_path, monkeypatch)
    assert main(["splits", "-d", "4", "--fractions", "0.1"]) == 0
    capsys.readouterr()
    return base


def test_settings_and_next_commands(base, capsys):
    arguments = ["plans", "-d", "4", "--split", "l10", "--training", "num_epochs=200", "optimizer=adamw"]
    assert main([*arguments, "--hyperparameters", "nnUNetTrainerMeanTeacher:consistency_weight=0.2"]) == 0
    assert json.loads((base / "nnUNetPlans_l10.json").read_text())["nnunet_ssl"] == {
        "split": "l10",
        "training": {"num_epochs": 200, "optimizer": "adamw"},
        "hyperparameters": {"nnUNetTrainerMeanTeacher": {"consistency_weight": 0.2}},
        "source": "nnUNetPlans",
    }
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Plans for semi-supervised training: {base / 'nnUNetPlans_l10.json'}"
    assert "training: num_epochs = 200" in lines
    assert "  nnUNetv2_train 4 3d_fullres 0 -tr nnUNetTrainerMeanTeacher -p nnUNetPlans_l10" in lines
    assert "  nnUNetv2_train 4 3d_fullres 0 -tr nnUNetTrainerSupervised -p nnUNetPlans_l10" in lines


def test_merging_is_said(base, capsys):
    main(["plans", "-d", "4", "--split", "l10", "--training", "num_epochs=200"])
    capsys.readouterr()
    assert main(["plans", "-d", "4", "-p", "nnUNetPlans_l10", "--name", "short", "--training", "num_epochs=2"]) == 0
    output = capsys.readouterr().out
    assert "nnUNetPlans_l10 carries settings already; they hold where nothing else was given." in output
    assert "split: l10" in output
    assert "training: num_epochs = 2\n" in output


def test_without_a_split_every_label_is_used(base, capsys):
    assert main(["plans", "-d", "4", "--name", "short", "--training", "num_epochs=2"]) == 0
    assert "split: none, every training label is used" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--split", "l20"], "Available: l10"),
        (["--split", "l10", "--training", "epochs=3"], 'unknown key "epochs"'),
        (["--split", "l10", "--training", "initial_lr=-1"], "must lie between"),
        (["--split", "l10", "--hyperparameters", "nnUNetTrainerNope:a=1"], "unknown trainer"),
        (["--split", "l10", "--name", "a/b"], '"a/b"'),
        (["--split", "l10", "--name", "a__b"], "double underscore"),
        (["--training", "num_epochs=3"], "--split or --name"),
        (["--name", "cpu", "--batch", "2"], "Give -c, such as -c 2d"),
        (["--name", "cpu", "-c", "2d"], "Give --features, --patch, --batch, --spacing, --network or --fit"),
        (["--name", "cpu", "-c", "2d", "--batch", "2"], "none of nnU-Net's U-Nets"),
    ],
)
def test_errors_are_explained_and_nothing_is_written(base, capsys, arguments, word):
    before = sorted(base.rglob("*"))
    assert main(["plans", "-d", "4", *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("nnunet_ssl plans: ")
    assert word in captured.err
    assert sorted(base.rglob("*")) == before


def test_unreadable_settings_of_both_kinds_are_said_at_once(base, capsys):
    hyperparameters = ["a", "b", "c=1", "T:d", "T:e=1", "T_5epochs:e=2"]
    assert main(["plans", "-d", "4", "--split", "l10", "--training", "x", "--hyperparameters", *hyperparameters]) == 1
    assert capsys.readouterr().err.splitlines()[1:] == [
        '  - "x" is not of the form key=value',
        '  - "a" is not of the form TRAINER:key=value',
        '  - "b" is not of the form TRAINER:key=value',
        '  - "c=1" is not of the form TRAINER:key=value',
        '  - T: "d" is not of the form key=value',
        '  - T: "e" is given twice',
        "Write every setting in that form, and once.",
    ]


def test_help_lists_the_settings(capsys):
    with pytest.raises(SystemExit):
        main(["plans", "--help"])
    output = capsys.readouterr().out
    assert "semi-supervised" in output
    for setting in ("num_epochs", "optimizer", "weight_decay"):
        assert setting in output


def test_a_small_network_and_the_commands_for_data_of_another_spacing(make_dataset, capsys):
    base = make_dataset(preprocess=False)
    small = ["-d", "901", "-c", "2d", "--patch", "8", "8", "--batch", "3", "--spacing", "2", "--features", "4", "8"]
    assert main(["plans", *small, "--name", "cpu", "--training", "num_epochs=2"]) == 0
    plans = json.loads((base / "cpu.json").read_text())
    assert plans["configurations"]["2d"]["data_identifier"] == "nnUNetPlans_2d_spacing2x2"
    assert [*plans["nnunet_ssl"]] == ["training", "changed", "source"]
    lines = capsys.readouterr().out.splitlines()
    assert "2d: patch 8 x 8 at 2 x 2 mm, batch 3, stages with 4 8 features" in lines
    preprocessing = [
        "  nnUNetv2_preprocess -d 901 -plans_name cpu -c 2d",
        "  nnunet_ssl preprocess -d 901 -p cpu -c 2d",
    ]
    assert lines[lines.index(preprocessing[0]) :][:2] == preprocessing
    assert "  nnUNetv2_train 901 2d 0 -tr nnUNetTrainerSupervised -p cpu -device cpu" in lines

    # the copy of that copy keeps its data, which are there after these commands
    (base / "nnUNetPlans_2d_spacing2x2").mkdir()
    (base / "nnUNetPlans_2d_spacing2x2" / "tiny_000.b2nd").touch()
    assert main(["plans", "-d", "901", "-p", "cpu", "--name", "cpu_long", "--training", "num_epochs=9"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not {*preprocessing} & {*lines}
    assert lines[1] == "cpu carries settings already; they hold where nothing else was given."
    assert "2d: patch 8 x 8 at 2 x 2 mm, batch 3, stages with 4 8 features" in lines


def test_data_of_another_spacing_by_the_documented_commands(make_dataset, capsys):
    """Labelled and unlabelled cases, a split of them, and plans that use it."""
    base = make_dataset(preprocess=False)
    small = ["-c", "2d", "--patch", "8", "8", "--spacing", "2", "--features", "4", "8"]
    assert main(["plans", "-d", "901", *small, "--name", "cpu"]) == 0
    assert main(["preprocess", "-d", "901", "-p", "cpu", "-c", "2d"]) == 1  # labelled cases first
    assert "nnUNetv2_preprocess -d 901 -plans_name cpu -c 2d" in capsys.readouterr().err
    preprocess_dataset(901, "cpu", ["2d"], [1])
    assert main(["preprocess", "-d", "901", "-p", "cpu", "-c", "2d", "-np", "1"]) == 0
    assert main(["splits", "-d", "901", "-p", "cpu", "--counts", "2"]) == 0
    assert "  nnunet_ssl plans -d 901 -p cpu --split n2" in capsys.readouterr().out.splitlines()
    assert main(["plans", "-d", "901", "-p", "cpu", "--split", "n2"]) == 0
    assert "carries settings" not in capsys.readouterr().out  # cpu has a network, no settings
    for folder, case in (
        ("nnUNetPlans_2d_spacing2x2", "tiny_000"),
        ("nnUNetPlans_2d_spacing2x2__unlabeled", "extra_000"),
    ):
        data, *_ = nnUNetDatasetBlosc2(str(base / folder)).load_case(case)
        assert data.shape == (1, 20, 11, 9)  # 20 x 22 x 18 voxels of 1 mm
