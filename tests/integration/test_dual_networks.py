"""Dual Networks on real data through the real commands, with 6 labelled cases of hippocampus."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_ssl import external
from tests.integration.commands import (
    TRAINING,
    Project,
    inputs,
    interrupt_after_first_epoch,
    segmentation,
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]
DUAL = "nnUNetTrainerDualNetworks"
PLANS = "nnUNetPlans_dual"
TERMS = [f"loss_{name}" for name in ("supervised_student", "supervised_teacher", "consistency", "uncertainty",
                                     "pseudo_label_student", "pseudo_label_teacher", "contrast")]  # fmt: skip


@pytest.fixture(scope="module")
def project(hippocampus: Callable[[Path], Project], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Plans without mirroring, which would average several predictions."""
    project = hippocampus(tmp_path_factory.mktemp("dual") / "project")
    project.run(
        "nnunet_ssl", "plans", "-d", 4, "--split", "n6", "--name", PLANS, "--training", *TRAINING, "mirror_axes=[]"
    )
    return project


def crops(project: Project, folder: Path) -> Path:
    """Two images no larger than the patch, so that each prediction is one window."""
    for file in inputs(project, folder).iterdir():
        image = SimpleITK.ReadImage(str(file))
        SimpleITK.WriteImage(image[5:29, 5:37, 5:29], str(file))
    return folder


def options(configuration: str, trainer: str) -> tuple[object, ...]:
    return (4, configuration, 0, "-tr", trainer, "-p", PLANS, "-device", "cpu")


def prediction(configuration: str, trainer: str, source: Path, out: Path) -> tuple[object, ...]:
    return ("nnUNetv2_predict", "-d", 4, "-c", configuration, "-f", 0, "-tr", trainer, "-p", PLANS, "-i", source,
            "-o", out, "-device", "cpu", "-npp", 0, "-nps", 0, "--save_probabilities")  # fmt: skip


def predict_with_each(model: Path, source: Path, folders: dict[str, Path]) -> None:
    """The predictions of the student and of the teacher alone, as nnU-Net makes and exports them."""
    device = torch.device("cpu")
    predictor = nnUNetPredictor(use_mirroring=False, perform_everything_on_device=False, device=device)
    predictor.initialize_from_trained_model_folder(str(model), (0,))
    for name in ("student", "teacher"):
        predictor.network.predict_with = name
        folders[name].mkdir()
        files = [[str(file)] for file in sorted(source.iterdir())]
        predictor.predict_from_files_sequential(files, str(folders[name]), save_probabilities=True)


def check_training(fold: Path, epochs: int) -> pd.DataFrame:
    table = pd.read_csv(fold / "semi_supervised.csv")
    assert len(table) == epochs and table[TERMS].gt(0).all(axis=None)
    assert (fold / "validation" / "summary.json").is_file()
    return table


def check_mean(source: Path, folders: dict[str, Path]) -> None:
    """Labels and probabilities of every image; those of "mean" are the mean of the two networks' own."""
    names = sorted(p.name.replace("_0000.nii.gz", "") for p in source.iterdir())
    assert names
    for name in names:
        mean, student, teacher = (
            np.load(folders[n] / f"{name}.npz")["probabilities"].astype(np.float64)
            for n in ("mean", "student", "teacher")
        )
        np.testing.assert_allclose(mean.sum(0), 1, atol=1e-3)
        # towards the corners of a window, nnU-Net's Gaussian weights are too small for its half precision
        centre = (slice(None), *(slice(size // 4, 3 * size // 4) for size in mean.shape[1:]))
        assert mean[centre].size > 3 * 1000
        np.testing.assert_allclose(mean[centre], ((student + teacher) / 2)[centre], atol=2e-3)
        assert np.abs(student - teacher).max() > 0.05
        label = segmentation(folders["mean"] / f"{name}.nii.gz")
        assert label.shape == mean.shape[1:] and np.array_equal(label, mean.argmax(0))


def test_trains_continues_validates_and_predicts_the_mean(project: Project, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", next(iter(external.__path__)))
    given = options("3d_fullres", DUAL)
    results = project.results(DUAL, PLANS, "3d_fullres")
    fold = results / "fold_0"
    log = project.run("nnUNetv2_train", *given)
    assert "7 labelled" in log and "Mean Validation Dice" in log  # 6, and the other side of the last subject
    first = check_training(fold, 2)

    interrupt_after_first_epoch(fold)
    source = crops(project, tmp_path / "in")
    folders = {name: tmp_path / name for name in ("mean", "student", "teacher")}
    log = project.run_each(
        ("nnUNetv2_train", *given, "--c"),
        ("nnUNetv2_train", *given, "--val"),
        prediction("3d_fullres", DUAL, source, folders["mean"]),
    )
    continued, validated = log.split("$ nnUNetv2_")[1:3]
    assert "Epoch 1" in continued and "Epoch 0" not in continued and "before the resume" not in continued
    dice = [part.split("Mean Validation Dice: ")[1].split()[0] for part in (continued, validated)]
    assert dice[0] == dice[1] and "Epoch" not in validated
    table = check_training(fold, 2)
    assert table.iloc[0].equals(first.iloc[0])
    assert table["weight_contrast"].iloc[1] == pytest.approx(first["weight_contrast"].iloc[1])
    predict_with_each(results, source, folders)
    check_mean(source, folders)


def test_2d_and_the_released_preset(project: Project, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", next(iter(external.__path__)))
    source = crops(project, tmp_path / "in")
    short, released = f"{DUAL}_1epochs", f"{DUAL}_released_1epochs"
    folders = {name: tmp_path / name for name in ("mean", "student", "teacher")}
    project.run_each(
        ("nnUNetv2_train", *options("2d", short)),
        prediction("2d", short, source, folders["mean"]),
        ("nnUNetv2_train", *options("3d_fullres", released)),
    )
    results = project.results(short, PLANS, "2d")
    check_training(results / "fold_0", 1)
    state = torch.load(results / "fold_0" / "checkpoint_final.pth", weights_only=False)["network_weights"]
    assert any(name.startswith("student.") and "blocks" in name for name in state)
    assert any(name.startswith("teacher.") for name in state) and state["region_based"].item() is False
    predict_with_each(results, source, folders)
    check_mean(source, folders)
    table = pd.read_csv(project.results(released, PLANS, "3d_fullres") / "fold_0" / "semi_supervised.csv")
    assert len(table) == 1 and table[["loss_consistency", "loss_uncertainty"]].gt(0).all(axis=None)
    assert "loss_contrast" not in table
