from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_ssl.trainers.published_supervised import nnUNetTrainerPublishedSupervised
from nnunet_ssl.trainers.supervised import nnUNetTrainerSupervised
from nnunet_ssl.training.published_recipes import PUBLISHED
from nnunet_ssl.training.recipe import (
    ADAMW,
    ADAMW_FOR_TRANSFORMERS,
    AS_PUBLISHED,
    CONSTANT,
    NNUNET,
    NNUNET_EPOCHS,
    Optimization,
    Recipe,
    divided_by_ten_at,
)
from tests.running import make_trainer


class Published(nnUNetTrainerSupervised):
    recipe = Recipe(
        Optimization("adam", rate=0.02, weight_decay=0.5, schedule=divided_by_ten_at(0.5)),
        epochs=8,
        batch_size=3,
        batch_size_2d=5,
        augmented=False,
        foreground_share=0.0,
        mirrored_prediction=False,
        deep_supervision=False,
    )


def test_a_recipe_is_followed(make_dataset):
    dataset = make_dataset()
    trainer = make_trainer(dataset, Published, training=None)
    trainer.on_train_start()
    (group,) = trainer.optimizer.param_groups
    assert (type(trainer.optimizer), group["lr"], group["weight_decay"]) == (torch.optim.Adam, 0.02, 0.5)
    rates = []
    for epoch in (0, 3, 4, 7):
        trainer.lr_scheduler.step(epoch)
        rates.append(group["lr"])
    assert rates == pytest.approx([0.02, 0.02, 0.002, 0.002])
    assert (trainer.num_epochs, trainer.batch_size, trainer.oversample_foreground_percent) == (8, 3, 0.0)
    assert trainer.inference_allowed_mirroring_axes is None and trainer.enable_deep_supervision is False
    loader = trainer.dataloader_train.data_loader
    assert list(loader.patch_size) == list(loader.final_patch_size)  # no room for a rotation
    assert not any("Spatial" in type(t).__name__ for t in loader.transforms.transforms)
    assert trainer.settings_in_force()["training"]["optimizer"] == "adam"
    two = make_trainer(dataset, Published, "2d", training=None)
    two.initialize()
    assert two.batch_size == 5


def test_the_settings_win(make_dataset):
    given = {"optimizer": "adamw", "initial_lr": 0.3, "weight_decay": 0.25, "num_epochs": 4}
    dataset = make_dataset(preprocess=False)
    trainer = make_trainer(dataset, Published, training=given)
    trainer.initialize()
    (group,) = trainer.optimizer.param_groups
    assert (type(trainer.optimizer), group["lr"], group["weight_decay"]) == (torch.optim.AdamW, 0.3, 0.25)
    assert trainer.num_epochs == 4
    stock = make_trainer(dataset, Published, training={"optimizer": "sgd"})
    assert stock.optimization is NNUNET and (stock.initial_lr, stock.weight_decay) == (0.01, 3e-5)


def test_one_source_of_the_length(make_dataset):
    dataset = make_dataset(preprocess=False)
    stock = make_trainer(dataset, nnUNetTrainerSupervised, training=None)
    assert stock.num_epochs == NNUNET_EPOCHS == nnUNetTrainerSupervised.planned_epochs({})
    assert Published.planned_epochs({}) == 8
    assert Published.planned_epochs({"nnunet_ssl": {"training": {"num_epochs": 3}}}) == 3

    class Published_2epochs(Published):
        length_variant_epochs = 2

    assert Published_2epochs.planned_epochs({"nnunet_ssl": {"training": {"num_epochs": 3}}}) == 2


def test_what_nnunets_own_step_does_cannot_be_left_out(make_dataset):
    class Unclipped(nnUNetTrainerSupervised):
        recipe = AS_PUBLISHED

    with pytest.raises(NotImplementedError, match="Unclipped: nnU-Net's own step clips"):
        make_trainer(make_dataset(preprocess=False), Unclipped)


def test_optimisers_by_setting():
    own = Recipe(ADAMW_FOR_TRANSFORMERS, {"adamw": ADAMW_FOR_TRANSFORMERS})
    assert [own.optimization_for(s) for s in (None, "adamw", "sgd")] == [ADAMW_FOR_TRANSFORMERS] * 2 + [NNUNET]
    assert Recipe().optimization_for("adamw") is ADAMW
    assert NNUNET.is_nnunets and Optimization(rate=0.1).is_nnunets
    others = (ADAMW, replace(NNUNET, momentum=0.9), replace(NNUNET, nesterov=False), replace(NNUNET, schedule=CONSTANT))
    assert not any(o.is_nnunets for o in others)


def test_what_decays_and_what_does_not():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))
    network[2].requires_grad_(False)
    decaying, others = ADAMW_FOR_TRANSFORMERS.groups(network, 0.01)
    assert [id(p) for p in decaying["params"]] == [id(network[0].weight)] and decaying["weight_decay"] == 0.01
    assert len(others["params"]) == 3 and others["weight_decay"] == 0.0
    (trainable,), (everything,) = NNUNET.groups(network, 0.01), ADAMW.groups(network, 0.01)
    assert len(trainable["params"]) == 4 and len(everything["params"]) == 6


@pytest.mark.parametrize("name", PUBLISHED)
def test_any_trainer_follows_a_recipe_that_the_settings_name(ready_dataset, name):
    recipe = PUBLISHED[name]
    trainer = make_trainer(ready_dataset(), nnUNetTrainerMeanTeacher, "2d", training={"recipe": name})
    trainer.initialize()
    (group,) = trainer.optimizer.param_groups
    wanted = recipe.optimization
    assert type(trainer.optimizer).__name__.lower() == wanted.name
    assert group["lr"] == wanted.rate and group.get("momentum", wanted.momentum) == wanted.momentum
    assert trainer.num_epochs == (recipe.epochs or NNUNET_EPOCHS)
    assert trainer.batch_size == (recipe.batch_size_for(2) or trainer.configuration_manager.batch_size)
    assert (trainer.grad_scaler is None) or recipe.mixed_precision
    assert trainer.settings_in_force()["training"]["recipe"] == name
    given = {"recipe": name, "num_epochs": 2, "initial_lr": 0.7}
    other = make_trainer(ready_dataset(), nnUNetTrainerMeanTeacher, "2d", training=given)
    assert (other.num_epochs, other.initial_lr, other.weight_decay) == (2, 0.7, trainer.weight_decay)


def test_nnunet_s_own_step_cannot_follow_what_it_does_not_know(ready_dataset):
    with pytest.raises(NotImplementedError, match="use nnUNetTrainerPublishedSupervised"):
        make_trainer(ready_dataset(), nnUNetTrainerSupervised, "2d", training={"recipe": "uamt"})


def test_the_published_control_has_the_recipe_and_the_loss(ready_dataset):
    settings = {"training": {"recipe": "plgcl"}, "hyperparameters": {"supervised_loss": "ce"}}
    trainer = make_trainer(ready_dataset(), nnUNetTrainerPublishedSupervised, "2d", **settings)
    trainer.initialize()
    assert trainer.recipe_in_force is PUBLISHED["plgcl"] and trainer.loss.loss.weight_dice == 0.0
    assert nnUNetTrainerPublishedSupervised.planned_epochs({}) == 24  # UA-MT's, where none is named


@pytest.mark.parametrize(
    ("name", "epochs", "batch", "rates"),
    [
        # stage 1 ends behind epoch 8; in steps 4500, 7000, 9500, 12,000 and 14,500
        ("bcp_la", 68, 4, {0: 1e-2, 8: 1e-2, 17: 1e-2, 18: 1e-3, 27: 1e-3, 28: 1e-4, 38: 1e-5, 48: 1e-6, 58: 1e-7}),
        ("admt_la", 60, 2, {0: 0.005, 30: 0.005 * 0.5**0.9}),
    ],
)
def test_recipes_for_the_left_atrium(ready_dataset, name, epochs, batch, rates):
    trainer = make_trainer(ready_dataset(), nnUNetTrainerMeanTeacher, "3d_fullres", training={"recipe": name})
    trainer.initialize()
    assert (trainer.num_epochs, trainer.batch_size) == (epochs, batch)
    found = {}
    for epoch in rates:
        trainer.lr_scheduler.step(epoch)
        (found[epoch],) = {group["lr"] for group in trainer.optimizer.param_groups}
    assert found == pytest.approx(rates)
