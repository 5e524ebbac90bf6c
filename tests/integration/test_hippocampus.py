"""Real data through the real commands: a subject-wise split with 6 labelled cases, the others withheld."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json

from tests.integration.commands import (
    DATASET,
    MEAN_TEACHER,
    Project,
    inputs,
    interrupt_after_first_epoch,
    run,
    same_predictions,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def withheld(hippocampus: Callable[[Path], Project], tmp_path_factory: pytest.TempPathFactory) -> Project:
    return hippocampus(tmp_path_factory.mktemp("withheld") / "project")


@pytest.fixture(scope="module")
def trained(withheld: Project) -> str:
    """Mean Teacher, 3d_fullres, trained for two epochs, with spawned pools as everywhere but in tests; the log."""
    return withheld.run(
        "nnUNetv2_train", 4, "3d_fullres", 0, "-tr", MEAN_TEACHER, "-p", "nnUNetPlans_n6", "-device", "cpu",
        PYTHONPATH=os.environ.get("PYTHONPATH", ""),
    )  # fmt: skip


def test_the_split_keeps_subjects_together(withheld: Project):
    content = load_json(str(withheld.preprocessed / "splits_ssl.json"))
    for fold in content["splits"]["n6"]["folds"]:
        sides = [{content["groups"][c] for c in fold[part]} for part in ("labeled", "unlabeled", "val")]
        assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
        assert len(fold["labeled"]) in (6, 7)


def test_mean_teacher_trains_and_validates(withheld: Project, trained: str):
    assert "Unlabelled pool:" in trained and "Mean Validation Dice" in trained
    folder = withheld.results(MEAN_TEACHER, "nnUNetPlans_n6", "3d_fullres") / "fold_0"
    assert (folder / "validation" / "summary.json").is_file()
    assert (folder / "progress_semi_supervised.png").is_file()
    table = pd.read_csv(folder / "semi_supervised.csv")
    assert len(table) == 2 and table["loss_consistency"].gt(0).all()
    assert load_json(str(folder.parent / "plans.json"))["nnunet_ssl"]["split"] == "n6"


def test_continues_and_validates_again(withheld: Project, trained: str):
    folder = withheld.results(MEAN_TEACHER, "nnUNetPlans_n6", "3d_fullres") / "fold_0"
    options = (4, "3d_fullres", 0, "-tr", MEAN_TEACHER, "-p", "nnUNetPlans_n6", "-device", "cpu")
    summary = folder / "validation" / "summary.json"
    before = load_json(str(summary))
    summary.unlink()
    withheld.run("nnUNetv2_train", *options, "--val")
    assert load_json(str(summary))["foreground_mean"] == before["foreground_mean"]
    interrupt_after_first_epoch(folder)
    output = withheld.run("nnUNetv2_train", *options, "--c")
    assert "Epoch 1" in output and "Epoch 0" not in output
    assert (folder / "checkpoint_final.pth").is_file() and not (folder / "checkpoint_latest.pth").exists()
    assert len(pd.read_csv(folder / "semi_supervised.csv")) == 2


def test_predicts_here_after_export_elsewhere_and_without_this_package(withheld: Project, trained: str, tmp_path: Path):
    source = inputs(withheld, tmp_path / "in")
    common = ("-d", 4, "-c", "3d_fullres", "-f", 0, "-i", source, "-device", "cpu", "-npp", 0, "-nps", 0)
    here = tmp_path / "here"
    withheld.run("nnUNetv2_predict", *common, "-tr", MEAN_TEACHER, "-p", "nnUNetPlans_n6", "-o", here)

    archive = tmp_path / "model.zip"
    withheld.run(
        "nnUNetv2_export_model_to_zip", "-d", 4, "-o", archive, "-c", "3d_fullres", "-tr", MEAN_TEACHER,
        "-p", "nnUNetPlans_n6", "-f", 0,
    )  # fmt: skip
    elsewhere = Project(tmp_path / "elsewhere", DATASET)
    (elsewhere.root / "nnUNet_results").mkdir(parents=True)
    elsewhere.run("nnUNetv2_install_pretrained_model_from_zip", archive)
    there = tmp_path / "there"
    elsewhere.run("nnUNetv2_predict", *common, "-tr", MEAN_TEACHER, "-p", "nnUNetPlans_n6", "-o", there)
    assert same_predictions(here, there)

    # the same weights under nnU-Net's own name, where this package cannot be imported
    installed = elsewhere.results(MEAN_TEACHER, "nnUNetPlans_n6", "3d_fullres")
    stock = elsewhere.results("nnUNetTrainer", "nnUNetPlans_n6", "3d_fullres")
    installed.rename(stock)
    file = stock / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    checkpoint["trainer_name"] = "nnUNetTrainer"
    torch.save(checkpoint, file)
    blocker = tmp_path / "blocker"
    blocker.mkdir()
    (blocker / "nnunet_ssl.py").write_text("raise ModuleNotFoundError('nnunet_ssl is not installed here')\n")
    environment = elsewhere.environment(PYTHONPATH=str(blocker))
    del environment["nnUNet_extTrainer"]
    run([sys.executable, "-c", "import nnunet_ssl"], environment, tmp_path, fails=True)
    line = [str(Path(sys.executable).parent / "nnUNetv2_predict"), *map(str, common), "-p", "nnUNetPlans_n6"]
    run([*line, "-tr", "nnUNetTrainer", "-o", str(tmp_path / "stock")], environment, tmp_path)
    assert same_predictions(here, tmp_path / "stock")


def test_control_trains_in_2d_and_predicts(withheld: Project, tmp_path: Path):
    trainer = "nnUNetTrainerSupervised_1epochs"
    options = ("-tr", trainer, "-p", "nnUNetPlans_n6", "-device", "cpu")
    source = inputs(withheld, tmp_path / "in")
    output = withheld.run_each(
        ("nnUNetv2_train", 4, "2d", 0, *options),
        ("nnUNetv2_predict", "-d", 4, "-c", "2d", "-f", 0, *options, "-i", source, "-o", tmp_path / "out",
         "-npp", 1, "-nps", 1),
    )  # fmt: skip
    assert 'Split "n6", fold 0:' in output and "Epoch 0" in output and "Epoch 1" not in output
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 2


def test_a_splits_file_edited_by_hand_stops_training(withheld: Project):
    file = withheld.preprocessed / "splits_ssl.json"
    original = file.read_text()
    try:
        file.write_text(original.replace('"seed": 0', '"seed": 1'))
        output = withheld.run(
            "nnUNetv2_train", 4, "3d_fullres", 1, "-tr", MEAN_TEACHER, "-p", "nnUNetPlans_n6", "-device", "cpu",
            fails=True,
        )  # fmt: skip
        assert "edited by hand" in output
    finally:
        file.write_text(original)
