"""Every trainer on plans that name a V-Net: a step, and weights that predict without deep supervision."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json

from nnunet_ssl.architectures.vnet import VNet
from nnunet_ssl.training.network import unwrap
from tests.trainers.registered import NAMES, make_registered
from tests.trainers.stepping import steps

OWN_NETWORK = ("nnUNetTrainerUXNet", "nnUNetTrainerDKUXNet", "nnUNetTrainerCMAformer")  # whatever the plans name
ONE_STEP = {"num_epochs": 2, "num_iterations_per_epoch": 1, "num_val_iterations_per_epoch": 1, "seed": 1}


def with_vnet(plans: dict[str, Any]) -> dict[str, Any]:
    plans = copy.deepcopy(plans)
    for name, dims in (("2d", 2), ("3d_fullres", 3)):
        architecture = plans["configurations"][name]["architecture"]
        architecture["network_class_name"] = f"{VNet.__module__}.{VNet.__name__}"
        architecture["arch_kwargs"] |= {
            "norm_op": f"torch.nn.BatchNorm{dims}d", "norm_op_kwargs": {}, "n_conv_per_stage": [1, 2, 2],
            "dropout_op": f"torch.nn.Dropout{dims}d", "dropout_op_kwargs": {"p": 0.5},
        }  # fmt: skip
    return plans


@pytest.fixture
def folder(ready_dataset, tmp_path: Path) -> Path:
    """Plans with a V-Net, beside the dataset that tests share."""
    dataset = ready_dataset()
    save_json(with_vnet(load_json(str(dataset / "nnUNetPlans.json"))), str(tmp_path / "nnUNetPlans.json"))
    save_json(load_json(str(dataset / "dataset.json")), str(tmp_path / "dataset.json"))
    return tmp_path


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith(OWN_NETWORK)])
def test_a_step_of_every_trainer(folder, name):
    trainer = make_registered(folder, name, "2d", split="n2", training=ONE_STEP)
    trainer.initialize()
    (found,) = steps(trainer, 1)
    assert 0 < found["total"] < 100
    trained = unwrap(trainer.network)
    assert any(isinstance(module, VNet) for module in trained.modules()) or name.startswith("nnUNetTrainerSKCDF")
    alone = trainer.build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, 1, 3, enable_deep_supervision=False
    )
    alone.load_state_dict(trained.state_dict())
    trainer.set_deep_supervision_enabled(False)
    images = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(alone.eval()(images), trained.eval()(images))
