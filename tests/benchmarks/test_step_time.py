"""benchmarks/step_time.py takes a step of every trainer, with and without a look at the pull of its terms."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import step_time
from bench_plans import builtin_plans
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities import find_objects

from nnunet_ssl.planning.stand_in import write_stand_in
from nnunet_ssl.trainers import find_trainer
from nnunet_ssl.training import base
from nnunet_ssl.training.monitor import OBSERVE_EVERY
from tests.trainers.registered import NAMES, small


@pytest.mark.parametrize("name", [step_time.STOCK, *NAMES])
def test_a_step_of_every_trainer(tmp_path, monkeypatch, name):
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, "changed by write_stand_in")
    classes = {name: find_trainer(name) for name in NAMES} | {step_time.STOCK: nnUNetTrainer}
    # nnU-Net's search takes longer than the steps
    monkeypatch.setattr(find_objects, "recursive_find_trainer_class_by_name", classes.get)
    plans, dataset_json = builtin_plans(2)
    configuration = plans["configurations"]["2d"]
    configuration |= {"patch_size": [32, 24], "batch_size": 2}
    architecture = configuration["architecture"]["arch_kwargs"]
    architecture |= {"n_stages": 3, "features_per_stage": [4, 4, 8]}
    for key, count in {"kernel_sizes": 3, "strides": 3, "n_conv_per_stage": 3, "n_conv_per_stage_decoder": 2}.items():
        architecture[key] = architecture[key][:count]
    plans["nnunet_ssl"] = {"hyperparameters": {name: small(name)}} if name in NAMES else {}
    looked = []
    measure = base.pull_of_terms
    monkeypatch.setattr(base, "pull_of_terms", lambda *args: looked.append(1) or measure(*args))
    write_stand_in(tmp_path, plans, "2d")
    step, share = step_time.step_of(name, Namespace(device="cpu"), plans, "2d", dataset_json)
    step()
    assert not looked
    assert step.plain % OBSERVE_EVERY != 0 and step.plain not in step.looks
    step(True)
    has_terms = hasattr(getattr(classes[name], "Hyperparameters", None), "pull_looks")
    assert len(looked) == has_terms and share == has_terms * 2 / 250
    assert 0 <= step_time.pull_of_epoch(step, share, turns=1) < 1
