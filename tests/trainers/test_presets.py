"""What trainers with an optimisation of their own train with, unless the settings say otherwise."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from torch.optim import SGD, Adam, AdamW

from nnunet_ssl.trainers import find_trainer
from nnunet_ssl.trainers.cmaformer.paper import nnUNetTrainerCMAformer_paper
from tests.running import SHORT, make_trainer

NESTEROV = {"momentum": 0.9, "nesterov": True}
STOCK = {"momentum": 0.99, "nesterov": True, "weight_decay": 3e-5}
CMAFORMERS = ("CMAformer", "CMAformerSupervised", "CMAformer_paper")
OPTIMISATION: list[tuple[str, dict[str, Any] | None, type, dict[str, Any]]] = [
    ("Supervised", {"optimizer": "adamw", "weight_decay": 0.02}, AdamW, {"weight_decay": 0.02}),
    ("Supervised", {"initial_lr": 0.1}, SGD, {"lr": 0.1}),
    ("SKCDF_paper", None, SGD, {"lr": 0.3, "weight_decay": 3e-5, **NESTEROV}),
    ("SKCDF_paper", {**SHORT, "initial_lr": 0.1, "weight_decay": 0.02}, AdamW, {"lr": 0.1, "weight_decay": 0.02}),
    ("SKCDF_paper", {"optimizer": "adamw"}, AdamW, {"lr": 0.01}),
    ("SKCDF_paper", {"optimizer": "sgd"}, SGD, {"lr": 0.01}),
    ("SKCDF_paper", {"initial_lr": 0.1}, SGD, {"lr": 0.1, **NESTEROV}),
    ("PLGCL_paper", None, Adam, {"lr": 1e-4, "weight_decay": 0.0}),
    ("PLGCL_paper", {**SHORT, "weight_decay": 0.02}, AdamW, {"lr": 0.003, "weight_decay": 0.02}),
    ("PLGCL_paper", {"initial_lr": 0.001}, Adam, {"lr": 0.001}),
    ("DualNetworks_released", None, SGD, {"lr": 0.01, "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4}),
    ("DualNetworks_released", {**SHORT, "weight_decay": 0.02}, AdamW, {"weight_decay": 0.02}),
    ("UniMatch_paper", None, SGD, {"lr": 0.005, "weight_decay": 2e-4, "momentum": 0.9, "nesterov": False}),
    ("FixMatch_paper", None, SGD, {"lr": 0.01, "weight_decay": 1e-4, "momentum": 0.9, "nesterov": False}),
    ("BCP_paper", None, SGD, {"lr": 0.01, "weight_decay": 1e-4, "momentum": 0.9, "nesterov": False}),
    ("ADMT_paper", None, SGD, {"lr": 0.005, "weight_decay": 2e-4, "momentum": 0.9, "nesterov": False}),
    ("CPS_released", None, SGD, {"lr": 0.005, "weight_decay": 2e-4, "momentum": 0.9, "nesterov": False}),
    ("CPS_released", {**SHORT, "weight_decay": 0.02}, AdamW, {"lr": 0.003, "weight_decay": 0.02}),
    ("UXNet", {"optimizer": "sgd"}, SGD, {"lr": 0.01, "weight_decay": 3e-5}),
    ("UXNet", {"optimizer": "adamw"}, AdamW, {"lr": 1e-4, "weight_decay": 0.01}),
    ("UXNet", {"initial_lr": 0.002, "weight_decay": 0.1}, AdamW, {"lr": 0.002, "weight_decay": 0.1}),
    ("DKUXNet_paper", None, AdamW, {"lr": 1e-4, "weight_decay": 0.01}),
    ("LDC", None, SGD, {"lr": 0.01, **STOCK}),
    *((name, None, SGD, {"lr": 0.001, **STOCK}) for name in CMAFORMERS),
    *((name, {"initial_lr": 0.5}, SGD, {"lr": 0.5}) for name in CMAFORMERS),
    *((name, {"optimizer": "adamw"}, AdamW, {"lr": 0.001}) for name in CMAFORMERS),
    *((name, {"optimizer": "sgd"}, SGD, {"lr": 0.001}) for name in CMAFORMERS),
]


def made(dataset: Any, name: str, configuration: str = "2d", **options: Any) -> Any:
    return make_trainer(dataset, find_trainer(f"nnUNetTrainer{name}"), configuration, **options)


@pytest.mark.parametrize(("name", "training", "optimizer", "values"), OPTIMISATION)
def test_the_optimisation_is_the_published_one_unless_the_settings_say_otherwise(
    ready_dataset, name, training, optimizer, values
):
    trainer = made(ready_dataset(), name, training=training)
    trainer.initialize()
    assert type(trainer.optimizer) is optimizer
    first = trainer.optimizer.param_groups[0]  # with weight decay, if any is
    assert {key: first[key] for key in values} == values
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {first["lr"]}  # of the head, too
    if training and "num_epochs" in training:
        assert (trainer.num_epochs, trainer.num_iterations_per_epoch) == (2, 3)


@pytest.mark.parametrize(
    ("name", "epochs", "rates"),
    [
        ("SKCDF_paper", 1500, {750: 0.160766}),
        ("PLGCL_paper", 1000, {0: 1e-4, 500: 1e-4, 999: 1e-4}),
        # 2500 and 5000 of 6000 steps are 10 and 20 epochs
        ("DualNetworks_released", 24, {0: 0.01, 9: 0.01, 10: 0.001, 19: 0.001, 20: 0.0001, 23: 0.0001}),
        ("UniMatch_paper", 124, {62: 0.005 * 0.5**0.9}),
        ("FixMatch_paper", 124, {62: 0.01 * 0.5**0.9}),
        ("BCP_paper", 160, {0: 0.01, 159: 0.01}),
        ("ADMT_paper", 120, {60: 0.005 * 0.5**0.9}),
        ("CPS_released", 124, {62: 0.005 * 0.5**0.9}),
        ("DKUXNet", 1000, {500: 1e-4 * 0.5**0.9}),
        ("DKUXNet_paper", 160, {1: 1e-4, 159: 1e-4}),
    ],
)
def test_length_and_rates_along_the_training(ready_dataset, name, epochs, rates):
    trainer = made(ready_dataset(), name, training=None)
    trainer.initialize()
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch) == (epochs, 250)
    found = {}
    for epoch in rates:
        trainer.lr_scheduler.step(epoch)
        (found[epoch],) = {group["lr"] for group in trainer.optimizer.param_groups}
    assert found == pytest.approx(rates, abs=1e-6)
    variant = made(ready_dataset(), f"{name}_9epochs", training=None)
    assert variant.num_epochs == 9 and variant.hyperparameters == trainer.hyperparameters


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize(
    "name", ["SKCDF_paper", "DualNetworks_released", "DKUXNet_paper", "UniMatch_paper", "FixMatch_paper", "BCP_paper",
     "ADMT_paper", "CPS_released"],
)  # fmt: skip
def test_as_published_nothing_is_clipped_scaled_mirrored_or_sought(ready_dataset, name):
    trainer = made(ready_dataset(), name, training=None, device="cuda")
    assert trainer.grad_scaler is None and isinstance(trainer.mixed_precision(), nullcontext)
    trainer = made(ready_dataset(), name, training=None)
    trainer.on_train_start()
    assert not trainer.recipe.clipped and trainer.inference_allowed_mirroring_axes is None
    assert trainer.dataloader_train.data_loader.labeled.oversample_foreground_percent == 0.0


PLANNED = 7  # patches per step in the plans, which no preset has of its own


@pytest.mark.parametrize(
    ("name", "configuration", "size"),
    [("SKCDF_paper", "3d_fullres", 2), ("PLGCL_paper", "2d", 8), ("PLGCL_paper", "3d_fullres", PLANNED),
     ("DualNetworks_released", "3d_fullres", 2), ("DKUXNet_paper", "2d", 1), ("UniMatch_paper", "2d", 12),
     ("UniMatch_paper", "3d_fullres", 2), ("FixMatch_paper", "2d", 12), ("BCP_paper", "2d", 12),
     ("BCP_paper", "3d_fullres", 4), ("ADMT_paper", "2d", 12), ("ADMT_paper", "3d_fullres", 2),
     ("CPS_released", "2d", 12), ("CPS_released", "3d_fullres", 2)],
)  # fmt: skip
def test_patches_per_step_as_published(ready_dataset, name, configuration, size):
    trainer = made(ready_dataset(), name, configuration, training=None)
    trainer.configuration_manager.configuration["batch_size"] = PLANNED
    trainer.on_train_start()
    assert [len(part) for part in trainer.split_batch(next(trainer.dataloader_train))] == [size, size]


def test_cmaformers_rate_follows_its_gate(ready_dataset):
    sigmoid = {"training": None, "hyperparameters": {"gate": "sigmoid"}}
    assert made(ready_dataset(), "CMAformer", **sigmoid).initial_lr == 0.01
    assert made(ready_dataset(), "CMAformer_paper", **sigmoid).initial_lr == 0.001
    hp = nnUNetTrainerCMAformer_paper.Hyperparameters()
    assert (hp.dice_form, hp.gate, hp.lite, hp.position_bias) == ("voxel", "qkv", False, True)
