"""The baselines of the field through the real commands on a tiny dataset, interrupted and continued."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.integration.commands import Project, inputs, interrupt_after_first_epoch
from tests.tiny import DATASET

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]
TRAINING = ("num_epochs=2", "num_iterations_per_epoch=3", "num_val_iterations_per_epoch=1", "save_every=1",
            "optimizer=adamw", "initial_lr=0.003", "mirror_axes=[]")  # fmt: skip
TERMS = {
    "nnUNetTrainerFixMatch": ("3d_fullres", ("strong",), ("threshold=0.4",)),
    "nnUNetTrainerUniMatch": ("2d", ("strong", "features"), ("threshold=0.4",)),
    "nnUNetTrainerBCP": ("3d_fullres", ("pseudo_label",), ("pretrain_fraction=0",)),
    "nnUNetTrainerADMT": ("2d", ("pseudo_label",), ("threshold=0.4", "period_steps=1")),
    "nnUNetTrainerCPS": ("2d", ("cross_first", "cross_second"), ("balance=crest",)),
    "nnUNetTrainerUAMT": ("2d", ("consistency",), ("threshold_start=1", "passes=2")),
    "nnUNetTrainerURPC": ("3d_fullres", ("consistency",), ("full_resolution_supervision=true",)),
    "nnUNetTrainerDHC": ("2d", ("cross_first", "cross_second"), ("weight_floor=0",)),
    "nnUNetTrainerMCNet": ("3d_fullres", ("consistency",), ()),
    "nnUNetTrainerDTC": ("3d_fullres", ("distance", "consistency"), ()),
    "nnUNetTrainerSSNet": ("2d", ("smoothness", "separation"), ()),
}
"""Configuration, unlabelled terms, and settings without which nothing would be learnt in six steps."""
AUXILIARY = {"nnUNetTrainerCPS": "second", "nnUNetTrainerDHC": "second", "nnUNetTrainerMCNet": "second",
             "nnUNetTrainerDTC": "distance_head", "nnUNetTrainerSSNet": "heads", "nnUNetTrainerURPC": ""}  # fmt: skip
"""In the checkpoint, where that is not a teacher; URPC has none."""


@pytest.fixture
def project(make_dataset) -> Project:
    return Project(make_dataset().parents[1], DATASET)


@pytest.mark.parametrize("name", TERMS)
def test_trains_continues_and_predicts(project: Project, tmp_path: Path, name: str):
    configuration, terms, settings = TERMS[name]
    source = inputs(project, tmp_path / "in")

    def training(*more: str) -> tuple[object, ...]:
        return ("nnUNetv2_train", 901, configuration, 0, "-tr", name, "-p", "run", "-device", "cpu", *more)

    chosen = ("--hyperparameters", *(f"{name}:{s}" for s in settings)) if settings else ()
    plans = ("nnunet_ssl", "plans", "-d", 901, "--name", "run", "--training", *TRAINING, *chosen)
    project.run_each(plans, training(), nnUNet_n_proc_DA="0")
    fold = project.results(name, "run", configuration) / "fold_0"
    table = pd.read_csv(fold / "semi_supervised.csv")
    supervised = "supervised_first" if "cross_first" in terms else "supervised"
    assert len(table) == 2 and table[[f"loss_{t}" for t in (supervised, *terms)]].gt(0).all(axis=None)
    auxiliary = torch.load(fold / "checkpoint_final.pth", weights_only=False)["nnunet_ssl"]["auxiliary"]
    if expected := AUXILIARY.get(name, "teacher"):
        assert expected in auxiliary

    interrupt_after_first_epoch(fold)
    prediction = ("nnUNetv2_predict", "-d", 901, "-c", configuration, "-f", 0, "-tr", name, "-p", "run", "-i", source,
                  "-o", tmp_path / "out", "-device", "cpu", "-npp", 0, "-nps", 0)  # fmt: skip
    project.run_each(training("--c"), prediction, nnUNet_n_proc_DA="0")
    assert (fold / "validation" / "summary.json").is_file()
    assert (fold / "checkpoint_final.pth").is_file() and len(list((tmp_path / "out").glob("*.nii.gz"))) == 2
