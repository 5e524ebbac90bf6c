"""Trainers in other people's folders: found, given settings, described; and what is said where they are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nnunet_ssl.cli import main
from nnunet_ssl.discovery import external_directory
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.evaluation.scoring.cases import _reads_splits
from nnunet_ssl.planning.plans_copy import make_plans_copy
from nnunet_ssl.trainers import CONTROL, find_trainer
from nnunet_ssl.trainers.lookup import find_any_trainer, nearest
from nnunet_ssl.training.settings import parse_settings
from tests.helpers_splits import PLANS
from tests.new_method import MINE, write_trainer

VARIABLE = "nnUNet_extTrainer"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reader's folder, beside ours in the variable."""
    folder = write_trainer(tmp_path)
    monkeypatch.setenv(VARIABLE, os.pathsep.join([external_directory(), str(folder)]))
    return folder


def refusal(name: str) -> str:
    with pytest.raises(SemiSupervisedError) as caught:
        find_any_trainer(name)
    return str(caught.value)


def test_ours_and_that_of_the_folder(folder, capfd):
    mine = find_any_trainer(MINE)
    assert mine.__name__ == MINE and mine is find_any_trainer(MINE)
    assert find_any_trainer(f"{CONTROL}_5epochs") is find_trainer(f"{CONTROL}_5epochs")
    assert capfd.readouterr() == ("", "")  # nnU-Net tells of every folder that it searches


def test_without_the_folder_it_is_unknown(folder, monkeypatch):
    find_any_trainer(MINE)
    monkeypatch.setenv(VARIABLE, external_directory())
    assert refusal(MINE) == f'unknown trainer "{MINE}": nnU-Net does not find it.\nRun: nnunet_ssl methods'


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("nnUNetTrainerFixmatch", "nnUNetTrainerFixMatch"),
        ("nnunettrainerMeanTeachers_50epochs", "nnUNetTrainerMeanTeacher_50epochs"),
        ("nnUNetTrainerDKUXNetSupervise", "nnUNetTrainerDKUXNetSupervised"),
        ("UNIMATCH", "nnUNetTrainerUniMatch"),
        ("nnUNetTrainerNope", None),
    ],
)
def test_a_typo_names_the_trainer_that_was_meant(typed, meant):
    assert nearest(typed) == meant
    assert (f"did you mean {meant}?" in refusal(typed)) == (meant is not None)


def test_a_trainer_that_knows_no_split(folder):
    assert 'trainer "nnUNetTrainer": it does not read splits' in refusal("nnUNetTrainer")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import not_there", "No module named 'not_there'"),
        ("raise SystemExit('usage: setup.py')", "usage: setup.py"),
        ("class nnUNetTrainerMine:\n    pass", "must inherit from 'nnUNetTrainer'"),
    ],
)
def test_a_module_that_ends_the_search_is_told(folder, code, reason):
    (folder / "a_first.py").write_text(code)
    message = refusal(MINE)
    assert f"a module in nnUNet_extTrainer={os.environ[VARIABLE]} fails: " in message and reason in message


def test_plans_check_its_settings(folder):
    block = make_plans_copy(PLANS, "own", None, {}, {MINE: {"threshold": 0.9}})["nnunet_ssl"]
    assert block == {"hyperparameters": {MINE: {"threshold": 0.9}}}
    with pytest.raises(SemiSupervisedError) as caught:
        make_plans_copy(PLANS, "own", None, {}, {MINE: {"threshold": 2, "weigth": 1}, "nnUNetTrainer": {}})
    assert f'unknown key "weigth" in "hyperparameters" of {MINE}; allowed: pull_looks,' in str(caught.value)
    assert "threshold = 2 must lie between 0.0 and 1.0" in str(caught.value)
    assert 'trainer "nnUNetTrainer": it does not read splits' in str(caught.value)


def test_the_control_trains_with_plans_that_carry_its_settings(folder, monkeypatch):
    plans = make_plans_copy(PLANS, "own", "l10", {}, {MINE: {"threshold": 0.9}})
    kind = find_trainer(CONTROL).Hyperparameters
    assert parse_settings(plans, CONTROL, kind).split == "l10"
    plans["nnunet_ssl"]["hyperparameters"]["nnUNetTrainer"] = {}  # found, and without settings
    with pytest.raises(SemiSupervisedError, match='unknown trainer "nnUNetTrainer" in "hyperparameters"') as caught:
        parse_settings(plans, CONTROL, kind)
    assert MINE not in str(caught.value)
    monkeypatch.setenv(VARIABLE, external_directory())
    with pytest.raises(SemiSupervisedError, match=f'unknown trainer "{MINE}" in "hyperparameters"'):
        parse_settings(plans, CONTROL, kind)


def test_methods_lists_its_settings(folder, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["methods", "-tr", MINE]) == 0
    output = capsys.readouterr().out
    assert output.startswith(f"{MINE}\n") and "confidence from which a voxel is labelled" in output
    assert f"--hyperparameters {MINE}:weight=1.0" in output


def test_path_has_nothing_against_the_folder(folder, capfdbinary):
    main(["path"])
    output = capfdbinary.readouterr()
    assert output.out.decode().strip() == os.environ[VARIABLE] and output.err == b""


def test_evaluate_takes_the_split_of_its_plans(folder):
    assert [_reads_splits(name) for name in (MINE, CONTROL, "nnUNetTrainer")] == [True, True, False]
