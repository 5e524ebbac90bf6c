"""benchmarks/volume_constraint.py: the same training twice, with multipliers frozen at zero and with dual ascent."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import volume_constraint

from tests.running import write_split


@pytest.mark.parametrize("trainer", ["nnUNetTrainerLDC", "nnUNetTrainerCMAformer"])
def test_frozen_and_rising_multipliers_see_the_same_patches(make_dataset, trainer):
    dataset = make_dataset()
    write_split(dataset)
    plans = json.loads((dataset / "nnUNetPlans.json").read_text())
    args = Namespace(
        tr=trainer, f=0, split="n2", epochs=2, steps=2, every=1, batches=2, seed=0,
        hyperparameters={"multiplier_step": 0.4, "warmup_fraction": 0.0},
    )  # fmt: skip
    runs = {name: volume_constraint.train(args, name, plans, dataset) for name in ("frozen", "ascent")}
    for frozen, ascent in zip(*runs.values(), strict=True):
        for k in (1, 2):
            assert (
                frozen[f"true_volume_{k}"] == pytest.approx(ascent[f"true_volume_{k}"])
                and frozen[f"true_volume_{k}"] > 0
            )
            assert frozen[f"mean_error_{k}"] >= abs(frozen[f"error_of_mean_{k}"]) and 0 <= ascent[f"dice_{k}"] <= 1
        for part in ("labeled", "unlabeled"):
            assert frozen[f"multiplier_{part}"] == 0 < ascent[f"multiplier_{part}"] <= 0.5
    assert [row["epoch"] for row in runs["ascent"]] == [1, 2]
    assert runs["frozen"][-1]["error_of_mean_1"] != runs["ascent"][-1]["error_of_mean_1"]
