"""CMAformer and the Lagrange-duality losses on real data through the real commands: hippocampus and ACDC."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json

from nnunet_ssl.trainers.distance_targets import AddSignedDistance
from nnunet_ssl.trainers.ldc.trainer import nnUNetTrainerLDC
from tests.integration.commands import (
    TRAINING,
    Project,
    inputs,
    interrupt_after_first_epoch,
    same_predictions,
    segmentation,
)
from tests.running import make_trainer, seed_everything

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]
CMA, LDC, STOCK, PLANS = "nnUNetTrainerCMAformer", "nnUNetTrainerLDC", "nnUNetTrainer", "nnUNetPlans_cma"
TERMS = ["loss_constrained", "loss_constrained_unlabeled", "loss_squared_error", "loss_distance"]


@pytest.fixture(scope="module")
def project(hippocampus: Callable[[Path], Project], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Plans without mirroring, which would multiply the validation, and weights that nothing holds back at first."""
    project = hippocampus(tmp_path_factory.mktemp("cma") / "project")
    project.run(
        "nnunet_ssl", "plans", "-d", 4, "--split", "n6", "--name", PLANS,
        "--training", *TRAINING, "mirror_axes=[]",
        "--hyperparameters", f"{CMA}:norm_budget=0.9", f"{CMA}:transformer_layers=1",
        f"{CMA}:guard=false", f"{LDC}:guard=false", f"{CMA}:pull_looks=1",
    )  # fmt: skip
    return project


def options(configuration: str, trainer: str = CMA, dataset: int = 4, plans: str = PLANS) -> tuple[object, ...]:
    return (dataset, configuration, 0, "-tr", trainer, "-p", plans, "-device", "cpu")


def prediction(
    configuration: str, source: Path, out: Path, trainer: str = CMA, dataset: int = 4, plans: str = PLANS
) -> tuple[object, ...]:
    return ("-d", dataset, "-c", configuration, "-f", 0, "-tr", trainer, "-p", plans, "-i", source, "-o", out,
            "-device", "cpu", "-npp", 0, "-nps", 0)  # fmt: skip


def check_training(fold: Path, epochs: int) -> pd.DataFrame:
    table = pd.read_csv(fold / "semi_supervised.csv")
    assert len(table) == epochs and table[TERMS].gt(0).all(axis=None)
    # the multipliers rest in the warm-up, and are looked at in the first step of an epoch
    assert table[[c for c in table if c.startswith("weight_volume_")]].iloc[-1].ne(0).any() == (epochs > 1)
    assert table[["violation_volume_labeled", "teacher_student_dice"]].ge(0).all(axis=None)
    assert (fold / "validation" / "summary.json").is_file()
    return table


def check_predictions(source: Path, out: Path, classes: int) -> None:
    for image in source.iterdir():
        label = segmentation(out / image.name.replace("_0000", ""))
        assert label.shape == segmentation(image).shape and label.max() <= classes


def dual_state(file: Path) -> dict[str, Any]:
    state = torch.load(file, weights_only=False)["nnunet_ssl"]["auxiliary_state"]
    return {**state["multipliers"], "norm_budget": state["norm_budget"]}


def rename_to_stock(ours: Path, theirs: Path) -> None:
    """The results of a training of the plans' own network, as if nnU-Net's own trainer had written them."""
    check_training(ours / "fold_0", 1)
    file = ours / "fold_0" / "checkpoint_final.pth"
    torch.save(torch.load(file, weights_only=False) | {"trainer_name": STOCK}, file)
    ours.rename(theirs)


def test_trains_continues_validates_and_predicts(project: Project, tmp_path: Path):
    source, configuration = inputs(project, tmp_path / "in"), "3d_fullres"
    given, fold = options(configuration), project.results(CMA, PLANS, configuration) / "fold_0"
    short, plain = f"{CMA}_1epochs", f"{LDC}_1epochs"
    log = project.run_each(
        ("nnUNetv2_train", *given),
        ("nnUNetv2_train", *options("2d", short)),
        ("nnUNetv2_predict", *prediction("2d", source, tmp_path / "2d", short)),
    )
    assert "7 labelled" in log and "Weights of the classes in the Dice:" in log and "Mean Validation Dice" in log
    first = check_training(fold, 2)
    check_training(project.results(short, PLANS, "2d") / "fold_0", 1)

    interrupt_after_first_epoch(fold)
    before = dual_state(fold / "checkpoint_latest.pth")
    log = project.run_each(
        ("nnUNetv2_train", *given, "--c"),
        ("nnUNetv2_predict", *prediction(configuration, source, tmp_path / "3d")),
        ("nnUNetv2_train", *options(configuration, plain)),
        ("nnUNetv2_predict", *prediction(configuration, source, tmp_path / "ldc", plain)),
    )
    rename_to_stock(project.results(plain, PLANS, configuration), project.results(STOCK, PLANS, configuration))
    project.run("nnUNetv2_predict", *prediction(configuration, source, tmp_path / "stock", STOCK))
    assert same_predictions(tmp_path / "ldc", tmp_path / "stock")
    continued = log.split("$ nnUNetv2_")[1]
    assert "Epoch 1" in continued and "Epoch 0" not in continued and "before the resume" not in continued
    table = check_training(fold, 2)
    assert table.iloc[0].equals(first.iloc[0])
    after = dual_state(fold / "checkpoint_final.pth")
    assert torch.equal(before["norm_budget"], after["norm_budget"])
    # three steps went on from where six had ended: each moves a volume by 0.01 at most
    for name, step in (("volume_labeled", 0.01), ("norm", 0.01)):
        assert before[name].any() and not torch.equal(before[name], after[name])
        assert (after[name] - before[name]).abs().max() <= 3 * step
    for out in (tmp_path / "2d", tmp_path / "3d"):
        check_predictions(source, out, classes=2)


def test_distance_maps_cost_the_loader_less_than_a_third(project: Project, monkeypatch: pytest.MonkeyPatch):
    """Of its processor time, on the patch that nnU-Net plans for hippocampus; the same batches with and without."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(project.root / name))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    plans = load_json(str(project.preprocessed / f"{PLANS}.json"))
    plans["configurations"]["3d_fullres"]["patch_size"] = [40, 56, 40]
    save_json(plans | {"plans_name": "loader"}, str(project.preprocessed / "loader.json"), sort_keys=False)
    trainer = make_trainer(project.preprocessed, nnUNetTrainerLDC, split="n6", plans_name="loader")
    trainer.initialize()
    loader = trainer.get_dataloaders()[0].data_loader
    labeled = loader.labeled
    augmentation = labeled.transforms.transforms
    complete = augmentation.transforms
    assert isinstance(complete[-1], AddSignedDistance) and complete[-1].factors == [2, 2, 2]
    least = dict.fromkeys(((seed, with_maps) for seed in range(8) for with_maps in (True, False)), math.inf)
    for _ in range(2):  # the lesser of two turns: what else runs on the machine slows a batch, and nothing speeds it up
        for seed, with_maps in least:
            augmentation.transforms = complete if with_maps else complete[:-1]
            seed_everything(seed)
            start = time.process_time()
            next(loader)
            least[seed, with_maps] = min(least[seed, with_maps], time.process_time() - start)
    with_them, without = (sum(t for (_, maps), t in least.items() if maps == wanted) for wanted in (True, False))
    ratio = with_them / without
    print(f"loader with distance maps: {ratio:.3f} of the time without")
    assert ratio <= 1.3


def test_anisotropic_data_with_three_classes(acdc: Callable[[Path], Project], tmp_path: Path):
    project = acdc(tmp_path / "project")
    trainer, source, plans = f"{CMA}_1epochs", inputs(project, tmp_path / "in"), "nnUNetPlans_n2"
    log = project.run_each(
        ("nnunet_ssl", "plans", "-d", 27, "--split", "n2", "--training", *TRAINING, "mirror_axes=[]",
         "--hyperparameters", f"{CMA}:guard=false", f"{CMA}:pull_looks=0"),
        ("nnUNetv2_train", *options("3d_fullres", trainer, 27, plans)),
        ("nnUNetv2_predict", *prediction("3d_fullres", source, tmp_path / "out", trainer, 27, plans)),
    )  # fmt: skip
    assert "Weights of the classes in the Dice: [0.3333, 0.3333, 0.3333]" in log
    results = project.results(trainer, plans, "3d_fullres") / "fold_0"
    table = check_training(results, 1)
    assert {f"volume_labeled_{k}" for k in (1, 2, 3)} <= set(table)
    assert len(list((results / "validation").glob("*.nii.gz"))) == 2
    check_predictions(source, tmp_path / "out", classes=3)
