"""PLGCL on real data through the real commands, with 6 labelled cases of hippocampus and 2 of ACDC."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json

from tests.integration.commands import (
    SCRIPTS,
    TRAINING,
    Project,
    inputs,
    interrupt_after_first_epoch,
    run,
    same_predictions,
    segmentation,
    shrink,
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]
PLGCL, PLANS = "nnUNetTrainerPLGCL", "nnUNetPlans_plgcl"
ACDC = "Dataset027_ACDC"


@pytest.fixture(scope="module")
def project(hippocampus: Callable[[Path], Project], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Plans without mirroring, which would multiply the validation."""
    project = hippocampus(tmp_path_factory.mktemp("plgcl") / "project")
    project.run(
        "nnunet_ssl", "plans", "-d", 4, "--split", "n6", "--name", PLANS,
        "--training", *TRAINING, "mirror_axes=[]", "--hyperparameters", f"{PLGCL}:memory_size=256",
    )  # fmt: skip
    return project


def options(configuration: str, dataset: int = 4, plans: str = PLANS) -> tuple[object, ...]:
    return (dataset, configuration, 0, "-tr", PLGCL, "-p", plans, "-device", "cpu")


def prediction(configuration: str, source: Path, out: Path) -> tuple[object, ...]:
    return ("-d", 4, "-c", configuration, "-f", 0, "-tr", PLGCL, "-p", PLANS, "-i", source, "-o", out,
            "-device", "cpu", "-npp", 0, "-nps", 0)  # fmt: skip


def check_training(fold: Path, classes: int) -> pd.DataFrame:
    """The first of two epochs is the warm-up, which fills the memory."""
    table = pd.read_csv(fold / "semi_supervised.csv")
    assert len(table) == 2 and table[["loss_supervised", "loss_consistency"]].gt(0).all(axis=None)
    assert table["loss_contrast"].tolist()[0] == 0 and table["loss_contrast"][1] > 0
    assert table["weight_contrast"].tolist() == pytest.approx([0, 0.2])
    assert table["purity"].between(0, 1).all() and table["count_candidates"].gt(0).all()
    keys = table[[f"count_keys_{k}" for k in range(classes)]]
    assert keys.iloc[1].gt(0).all() and keys.iloc[1].ge(keys.iloc[0]).all()
    assert (fold / "validation" / "summary.json").is_file()
    return table


def state_of(file: Path) -> dict:
    return torch.load(file, weights_only=False)["nnunet_ssl"]


def test_trains_continues_and_predicts_also_as_nnunet(project: Project, tmp_path: Path):
    configuration = "3d_fullres"
    given, fold = options(configuration), project.results(PLGCL, PLANS, configuration) / "fold_0"
    log = project.run("nnUNetv2_train", *given)
    assert "7 labelled" in log and "Mean Validation Dice" in log
    first = check_training(fold, 3)

    interrupt_after_first_epoch(fold)
    before = state_of(fold / "checkpoint_latest.pth")
    source = inputs(project, tmp_path / "in")
    log = project.run_each(
        ("nnUNetv2_train", *given, "--c"),
        ("nnUNetv2_predict", *prediction(configuration, source, tmp_path / "ours")),
    )
    continued = log.split("$ nnUNetv2_")[1]
    assert "Epoch 1" in continued and "Epoch 0" not in continued and "before the resume" not in continued
    table = pd.read_csv(fold / "semi_supervised.csv")
    assert table.iloc[0].equals(first.iloc[0])
    assert table["weight_covariance"].tolist() == pytest.approx(first["weight_covariance"].tolist())
    after = state_of(fold / "checkpoint_final.pth")
    pushed = [s["auxiliary"]["memory"]["pushed"] for s in (before, after)]
    assert (pushed[1] > pushed[0]).all() and (pushed[0] > 0).all()  # three more steps, on top of what was there
    generators = [s["auxiliary_state"]["generator"] for s in (before, after)]
    assert not torch.equal(*generators)

    # the same weights under nnU-Net's own name, where this package cannot be imported
    checkpoint = torch.load(fold / "checkpoint_final.pth", weights_only=False)
    torch.save(checkpoint | {"trainer_name": "nnUNetTrainer"}, fold / "checkpoint_final.pth")
    fold.parent.rename(project.results("nnUNetTrainer", PLANS, configuration))
    (tmp_path / "blocker").mkdir()
    (tmp_path / "blocker" / "nnunet_ssl.py").write_text("raise ModuleNotFoundError('nnunet_ssl is not installed here')")
    environment = project.environment(PYTHONPATH=str(tmp_path / "blocker"))
    del environment["nnUNet_extTrainer"]
    run([sys.executable, "-c", "import nnunet_ssl"], environment, tmp_path, fails=True)
    stock = [str(x).replace(PLGCL, "nnUNetTrainer") for x in prediction(configuration, source, tmp_path / "stock")]
    run([str(SCRIPTS / "nnUNetv2_predict"), *stock], environment, tmp_path)
    assert same_predictions(tmp_path / "ours", tmp_path / "stock")
    names = sorted(p.name.replace("_0000", "") for p in source.iterdir())
    assert names == sorted(p.name for p in (tmp_path / "ours").glob("*.nii.gz"))


def test_2d(project: Project, tmp_path: Path):
    source = inputs(project, tmp_path / "in")
    project.run_each(
        ("nnUNetv2_train", *options("2d")),
        ("nnUNetv2_predict", *prediction("2d", source, tmp_path / "out")),
    )
    fold = project.results(PLGCL, PLANS, "2d") / "fold_0"
    check_training(fold, 3)
    interrupt_after_first_epoch(fold)
    log = project.run("nnUNetv2_train", *options("2d"), "--c")
    assert "Epoch 1" in log and "Epoch 0" not in log
    check_training(fold, 3)
    for image in source.iterdir():
        label = segmentation(tmp_path / "out" / image.name.replace("_0000", ""))
        assert label.shape == segmentation(image).shape and label.max() <= 2


def test_anisotropic_data_with_three_classes(real_data: Path, tmp_path: Path):
    source = real_data / "acdc"
    if not source.is_dir():
        pytest.skip(f"no {source}")
    project = Project(tmp_path, ACDC)
    fold = load_json(str(source / "splits_final.json"))[0]
    fold = {"train": fold["train"][:6], "val": fold["val"][:2]}
    content = load_json(str(source / ACDC / "dataset.json")) | {"numTraining": 8}
    for name in ("imagesTr", "labelsTr"):
        (project.raw / name).mkdir(parents=True)
        for case in fold["train"] + fold["val"]:
            file = f"{case}{'_0000' if name == 'imagesTr' else ''}.nii.gz"
            shutil.copy(source / ACDC / name / file, project.raw / name)
    save_json(content, str(project.raw / "dataset.json"))
    project.run("nnUNetv2_plan_and_preprocess", "-d", 27, "-c", "3d_fullres", "-np", 1, "-npfp", 1)
    save_json([fold], str(project.preprocessed / "splits_final.json"))
    shrink(project.preprocessed / "nnUNetPlans.json", {"3d_fullres": [8, 64, 64]}, pool=4)
    given = options("3d_fullres", 27, "nnUNetPlans_n2")
    project.run_each(
        ("nnunet_ssl", "splits", "-d", 27, "--counts", 2),
        ("nnunet_ssl", "plans", "-d", 27, "--split", "n2", "--training", *TRAINING, "mirror_axes=[]",
         "--hyperparameters", f"{PLGCL}:memory_size=256"),
        ("nnUNetv2_train", *given),
    )  # fmt: skip
    results = project.results(PLGCL, "nnUNetPlans_n2", "3d_fullres") / "fold_0"
    check_training(results, 4)
    interrupt_after_first_epoch(results)
    log = project.run("nnUNetv2_train", *given, "--c")
    assert "Epoch 1" in log and "Epoch 0" not in log
    check_training(results, 4)
    assert len(list((results / "validation").glob("*.nii.gz"))) == 2
