"""Plans that fit a memory: fewer patches first, then smaller ones, as nnU-Net's planner would make them."""

from __future__ import annotations

import copy
import json
from math import prod

import numpy as np
import pytest
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

from nnunet_ssl.cli import main
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.planning import fit as module
from nnunet_ssl.planning.fit import GIB, Fit, fitted, smaller_patches
from nnunet_ssl.planning.rehearsal import StepCost, rehearse
from nnunet_ssl.trainers import find_trainer
from tests.planning.small_plan import DATASET_JSON
from tests.tiny import Tiny, plans_of

PLANS = plans_of(Tiny(shape=(64, 96, 80), patch_2d=(96, 80), features=(8, 16, 16)))
CONTROL, TEACHER = "nnUNetTrainerSupervised", "nnUNetTrainerMeanTeacher"


def need(plans: dict, trainer: str = TEACHER) -> float:
    """GiB of a step in 2D."""
    return rehearse(find_trainer(trainer), plans, "2d", DATASET_JSON).peak / GIB


@pytest.fixture
def linear(monkeypatch):
    """A step takes a byte for each voxel of the labelled patches, twice as many with a teacher."""

    def cost(trainer, plans, name, dataset_json):
        own = plans["configurations"][name]
        voxels = own["batch_size"] * own["patch_size"][0] * own["patch_size"][1]
        return StepCost(0, 0, 0, voxels * (2 if trainer.__name__ == TEACHER else 1), own["batch_size"], 1)

    monkeypatch.setattr(module, "rehearse", cost)
    plans = copy.deepcopy(PLANS)
    plans["configurations"]["2d"]["batch_size"] = 12
    return plans


@pytest.mark.parametrize(("patches", "expected"), [(12, 12), (11.5, 11), (7, 7), (2, 2)])
def test_the_largest_batch_that_fits(linear, patches, expected):
    gib = 2 * patches * 96 * 80 / GIB
    plans, estimates = fitted(linear, DATASET_JSON, Fit(gib, [CONTROL, TEACHER], ["2d"]))
    assert plans["configurations"]["2d"]["batch_size"] == expected
    assert plans["configurations"]["2d"]["patch_size"] == [96, 80]
    assert [(e.trainer, e.after * GIB) for e in estimates] == [
        (CONTROL, expected * 96 * 80),
        (TEACHER, 2 * expected * 96 * 80),
    ]
    assert plans.get("nnunet_ssl", {}).get("changed") == (None if expected == 12 else {"2d": ["batch_size"]})


@pytest.mark.parametrize(
    ("spacing", "shape"), [([1.0, 1.0], [96, 80]), ([1.0, 1.5], [250, 180]), ([2.0, 1, 1], [60, 140, 120])]
)
def test_then_the_patches_that_nnunets_planner_tries(make_dataset, monkeypatch, spacing, shape):
    make_dataset(preprocess=False)
    tried: list[list[int]] = []

    def estimate(patch, *_):
        tried.append([int(n) for n in patch])
        return 10**20 if len(tried) < 6 else 1

    monkeypatch.setattr(ExperimentPlanner, "static_estimate_VRAM_usage", staticmethod(estimate))
    ExperimentPlanner(901).get_plans_for_configuration(np.array(spacing), np.array(shape), "x", 1e6, {})
    own = {"spacing": spacing, "median_image_size_in_voxels": shape, "patch_size": tried[0]}
    ours = [*smaller_patches(own)]
    assert len(ours) > 2 and ours[:5] == tried[1 : len(ours) + 1]
    assert all(prod(tried[0]) <= 8 * prod(patch) for patch in ours)


def test_a_real_plan_fits_and_is_said_to_have_changed():
    before = need(PLANS)
    plans, (estimate,) = fitted(PLANS, DATASET_JSON, Fit(before / 2, [TEACHER], ["2d"]))
    own = plans["configurations"]["2d"]
    assert own["batch_size"] == 2 and 0.3 < own["patch_size"][0] * own["patch_size"][1] / (96 * 80) < 0.55
    assert estimate.before == before and estimate.after == need(plans) <= before / 2
    assert plans["nnunet_ssl"]["changed"] == {"2d": ["patch_size"]}
    assert plans["configurations"]["3d_fullres"] == PLANS["configurations"]["3d_fullres"]


def test_what_does_not_fit_is_refused_with_what_would():
    with pytest.raises(SemiSupervisedError, match=r"does not fit 1e-05 GiB in 2d.*2 labelled patches of") as error:
        fitted(PLANS, DATASET_JSON, Fit(1e-5, [TEACHER], ["2d"]))
    assert "Give it --fit 0.1, or name a trainer that needs less" in error.value.remedy


def test_the_command_tells_what_each_trainer_needs(make_dataset, capsys):
    base = make_dataset(preprocess=False)
    words = ["plans", "-d", "901", "--name", "fits", "-c", "2d", "-tr", CONTROL, TEACHER]
    assert main([*words, "--fit", "0.0005"]) == 0
    output = capsys.readouterr().out
    assert f"2d: a training step of {TEACHER} needs 0.0 GiB" in output
    assert "2d: patch 16 x 16 at 1 x 1 mm, batch 2" in output
    assert [line for line in output.splitlines() if "nnUNetv2_train" in line] == [
        f"  nnUNetv2_train 901 2d 0 -tr {trainer} -p fits" for trainer in (TEACHER, CONTROL)
    ]
    assert json.loads((base / "fits.json").read_text())["plans_name"] == "fits"
