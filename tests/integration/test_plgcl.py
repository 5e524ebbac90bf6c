"""PLGCL on real data through the real commands, with 6 labelled cases of hippocampus and 2 of ACDC."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.integration.commands import TRAINING, Project, inputs, interrupt_after_first_epoch, segmentation

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]
PLGCL, LONG, SHORT = "nnUNetTrainerPLGCL", "nnUNetPlans_plgcl", "nnUNetPlans_short"


def plans(dataset: int, split: str, name: str, *hyperparameters: str) -> tuple[object, ...]:
    """Without mirroring, which would multiply the validation."""
    return ("nnunet_ssl", "plans", "-d", dataset, "--split", split, "--name", name, "--training", *TRAINING,
            "mirror_axes=[]", "--hyperparameters", *(f"{PLGCL}:{h}" for h in ("memory_size=256", *hyperparameters)),
            )  # fmt: skip


def training(dataset: int, configuration: str, plans: str, trainer: str = PLGCL, *more: str) -> tuple[object, ...]:
    return ("nnUNetv2_train", dataset, configuration, 0, "-tr", trainer, "-p", plans, "-device", "cpu", *more)


def prediction(configuration: str, plans: str, trainer: str, source: Path, out: Path) -> tuple[object, ...]:
    return ("nnUNetv2_predict", "-d", 4, "-c", configuration, "-f", 0, "-tr", trainer, "-p", plans, "-i", source,
            "-o", out, "-device", "cpu", "-npp", 0, "-nps", 0)  # fmt: skip


def check_training(fold: Path, classes: int, contrasted: list[bool]) -> pd.DataFrame:
    """One entry of ``contrasted`` per epoch; the epoch before the first contrast fills the memory."""
    table = pd.read_csv(fold / "semi_supervised.csv")
    assert len(table) == len(contrasted) and table[["loss_supervised", "loss_consistency"]].gt(0).all(axis=None)
    assert table["loss_contrast"].gt(0).tolist() == contrasted
    held = [0.2 * factor * c for factor, c in zip(table["guard"], contrasted, strict=True)]
    assert table["weight_contrast"].tolist() == pytest.approx(held)
    assert table["purity"].between(0, 1).all() and table["count_candidates"].gt(0).all()
    keys = table[[f"count_keys_{k}" for k in range(classes)]].gt(0).sum(axis=1)
    assert keys.ge(2).all()  # of a few random patches, one class may miss
    assert (fold / "validation" / "summary.json").is_file()
    return table


def state_of(file: Path) -> dict:
    return torch.load(file, weights_only=False)["nnunet_ssl"]


def test_hippocampus_trains_continues_and_predicts_in_3d_and_2d(hippocampus: Callable[[Path], Project], tmp_path: Path):
    project = hippocampus(tmp_path / "project")
    once, source = f"{PLGCL}_1epochs", inputs(project, tmp_path / "in")
    log = project.run_each(
        plans(4, "n6", LONG),
        plans(4, "n6", SHORT, "warmup_epochs=0"),
        training(4, "3d_fullres", LONG),
        training(4, "2d", SHORT, once),
    )
    assert "7 labelled" in log and log.count("Mean Validation Dice") == 2  # 6, and the other side of the last one
    fold = project.results(PLGCL, LONG, "3d_fullres") / "fold_0"
    first = check_training(fold, 3, [False, True])
    check_training(project.results(once, SHORT, "2d") / "fold_0", 3, [True])

    interrupt_after_first_epoch(fold)
    before = state_of(fold / "checkpoint_latest.pth")
    log = project.run_each(
        training(4, "3d_fullres", LONG, PLGCL, "--c"),
        prediction("3d_fullres", LONG, PLGCL, source, tmp_path / "3d"),
        prediction("2d", SHORT, once, source, tmp_path / "2d"),
    )
    continued = log.split("$ nnUNetv2_")[1]
    assert "Epoch 1" in continued and "Epoch 0" not in continued and "before the resume" not in continued
    table = check_training(fold, 3, [False, True])
    assert table.iloc[0].equals(first.iloc[0])
    assert table["weight_covariance"].tolist() == pytest.approx(first["weight_covariance"].tolist())
    after = state_of(fold / "checkpoint_final.pth")
    pushed = [s["auxiliary"]["memory"]["pushed"] for s in (before, after)]
    assert (pushed[1] > pushed[0]).all() and (pushed[0] > 0).all()  # three more steps, on top of what was there
    generators = [s["auxiliary_state"]["generator"] for s in (before, after)]
    assert not torch.equal(*generators)
    for image in source.iterdir():
        for out in ("3d", "2d"):
            label = segmentation(tmp_path / out / image.name.replace("_0000", ""))
            assert label.shape == segmentation(image).shape and label.max() <= 2


def test_anisotropic_data_with_three_classes(acdc: Callable[[Path], Project], tmp_path: Path):
    project = acdc(tmp_path / "project")
    project.run_each(
        plans(27, "n2", SHORT, "warmup_epochs=0"),
        training(27, "3d_fullres", SHORT, f"{PLGCL}_1epochs"),
    )
    fold = project.results(f"{PLGCL}_1epochs", SHORT, "3d_fullres") / "fold_0"
    check_training(fold, 4, [True])
    assert len(list((fold / "validation").glob("*.nii.gz"))) == 2
