"""SKCDF on real data through the real commands, with 6 labelled cases of hippocampus and 2 of ACDC."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json

from tests.integration.commands import (
    PATCHES,
    TRAINING,
    Project,
    inputs,
    interrupt_after_first_epoch,
    segmentation,
    shrink,
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]
SKCDF = "nnUNetTrainerSKCDF"
TERMS = ["loss_supervised", "loss_supervised_balanced", "loss_unsupervised", "loss_unsupervised_balanced"]
PLAIN, RESIDUAL = "nnUNetPlans", "nnUNetResEncUNetMPlans"


@pytest.fixture(scope="module")
def project(hippocampus: Callable[[Path], Project], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Plans with plain and with residual encoder, both without mirroring, which would multiply the validation."""
    project = hippocampus(tmp_path_factory.mktemp("skcdf") / "project")
    project.run("nnUNetv2_plan_experiment", "-d", 4, "-pl", "nnUNetPlannerResEncM")
    shrink(project.preprocessed / f"{RESIDUAL}.json", PATCHES)
    names = [("-p", plans, "--split", "n6", "--name", f"{plans}_skcdf") for plans in (PLAIN, RESIDUAL)]
    settings = ("--training", *TRAINING, "mirror_axes=[]", "--hyperparameters", f"{SKCDF}:class_counts=cases")
    project.run_each(*(("nnunet_ssl", "plans", "-d", 4, *name, *settings) for name in names))
    return project


def options(configuration: str, plans: str, trainer: str = SKCDF, dataset: int = 4) -> tuple[object, ...]:
    return (dataset, configuration, 0, "-tr", trainer, "-p", plans, "-device", "cpu")


def prediction(configuration: str, plans: str, source: Path, out: Path, trainer: str = SKCDF) -> tuple[object, ...]:
    return ("-d", 4, "-c", configuration, "-f", 0, "-tr", trainer, "-p", plans, "-i", source, "-o", out,
            "-device", "cpu", "-npp", 0, "-nps", 0)  # fmt: skip


def check_training(fold: Path, epochs: int) -> pd.DataFrame:
    table = pd.read_csv(fold / "semi_supervised.csv")
    assert len(table) == epochs and table[TERMS].gt(0).all(axis=None)
    assert (fold / "validation" / "summary.json").is_file()
    return table


def check_prediction(source: Path, out: Path) -> None:
    names = sorted(p.name.replace("_0000", "") for p in source.iterdir())
    assert names == sorted(p.name for p in out.glob("*.nii.gz"))
    for name in names:
        image = segmentation(source / name.replace(".nii.gz", "_0000.nii.gz"))
        label = segmentation(out / name)
        assert label.shape == image.shape and label.max() <= 2


def mean_dice(log: str) -> str:
    return log.split("Mean Validation Dice: ")[1].split()[0]


def test_trains_continues_validates_and_predicts(project: Project, tmp_path: Path):
    plans, configuration = f"{PLAIN}_skcdf", "3d_fullres"
    given = options(configuration, plans)
    fold = project.results(SKCDF, plans, configuration) / "fold_0"
    log = project.run("nnUNetv2_train", *given)
    assert "7 labelled" in log  # 6, and the other side of the last subject
    assert "Voxels per class in the labelled cases:" in log and "Mean Validation Dice" in log
    first = check_training(fold, 2)
    counted = load_json(str(project.preprocessed / "class_counts_ssl.json"))["nnUNetPlans_3d_fullres"]
    split = load_json(str(project.preprocessed / "splits_ssl.json"))["splits"]["n6"]["folds"][0]
    assert sorted(counted) == sorted(split["labeled"])

    interrupt_after_first_epoch(fold)
    source = inputs(project, tmp_path / "in")
    log = project.run_each(
        ("nnUNetv2_train", *given, "--c"),
        ("nnUNetv2_train", *given, "--val"),
        ("nnUNetv2_predict", *prediction(configuration, plans, source, tmp_path / "out")),
    )
    continued, validated = log.split("$ nnUNetv2_")[1:3]
    assert "Epoch 1" in continued and "Epoch 0" not in continued and "before the resume" not in continued
    assert mean_dice(continued) == mean_dice(validated) and "Epoch" not in validated
    table = check_training(fold, 2)
    assert table.iloc[0].equals(first.iloc[0])
    assert table["weight_unsupervised"].iloc[1] == pytest.approx(first["weight_unsupervised"].iloc[1])
    check_prediction(source, tmp_path / "out")


def test_2d_and_residual_encoder_plans(project: Project, tmp_path: Path):
    source = inputs(project, tmp_path / "in")
    cases = [("2d", PLAIN), ("3d_fullres", RESIDUAL), ("2d", RESIDUAL)]
    trainer = f"{SKCDF}_1epochs"
    commands: list[tuple[object, ...]] = []
    for configuration, plans in cases:
        given, out = options(configuration, f"{plans}_skcdf", trainer), tmp_path / f"{plans}_{configuration}"
        # the last case is in two dimensions like the first and has the encoder of the second
        again = [] if (configuration, plans) == cases[-1] else ["--c", "--val"]
        commands += [
            ("nnUNetv2_train", *given),
            *(("nnUNetv2_train", *given, option) for option in again),
            ("nnUNetv2_predict", *prediction(configuration, f"{plans}_skcdf", source, out, trainer)),
        ]
    project.run_each(*commands)
    for configuration, plans in cases:
        fold = project.results(trainer, f"{plans}_skcdf", configuration) / "fold_0"
        check_training(fold, 1)
        state = torch.load(fold / "checkpoint_final.pth", weights_only=False)["network_weights"]
        assert any("blocks" in name for name in state) == (plans == RESIDUAL)
        tokens = state["complementarity.global_attention.token_map.weight"].shape[0]
        assert tokens == {"2d": 8 * 8, "3d_fullres": 6 * 8 * 6}[configuration]
        check_prediction(source, tmp_path / f"{plans}_{configuration}")


def test_anisotropic_data_with_three_classes_and_no_mirroring(acdc: Callable[[Path], Project], tmp_path: Path):
    project = acdc(tmp_path / "project")
    log = project.run_each(
        (
            "nnunet_ssl",
            "plans",
            "-d",
            27,
            "--split",
            "n2",
            "--training",
            *TRAINING,
            "mirror_axes=[]",
            "--hyperparameters",
            f"{SKCDF}:class_counts=cases",
        ),
        ("nnUNetv2_train", *options("3d_fullres", "nnUNetPlans_n2", f"{SKCDF}_1epochs", 27)),
    )
    counts = log.split("Voxels per class in the labelled cases: [")[1].split("]")[0].split(", ")
    assert len(counts) == 4 and all(int(count) > 0 for count in counts)
    results = project.results(f"{SKCDF}_1epochs", "nnUNetPlans_n2", "3d_fullres") / "fold_0"
    check_training(results, 1)
    checkpoint = torch.load(results / "checkpoint_final.pth", weights_only=False)
    assert checkpoint["inference_allowed_mirroring_axes"] is None
    assert len(list((results / "validation").glob("*.nii.gz"))) == 2
