"""Training runs with DKUXNet: plans that name the network, optimisation, prediction, presets, and what is refused."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from monai.losses import DiceCELoss
from torch import nn

from nnunet_ssl.architectures.dkuxnet import DKUXNet
from nnunet_ssl.architectures.uxnet import UXNet
from nnunet_ssl.trainers.dkuxnet.paper import nnUNetTrainerDKUXNet_paper
from nnunet_ssl.trainers.dkuxnet.trainer import nnUNetTrainerDKUXNet
from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_ssl.trainers.supervised import nnUNetTrainerSupervised
from tests.running import SHORT, make_trainer
from tests.saved_memory import saved_floats
from tests.trainers.dkuxnet.test_trainer import SMALL, batch_of, started

ONE = {**SHORT, "num_epochs": 1, "num_iterations_per_epoch": 2}
OWN = {"queries": 6, "query_width": 32, "attention_heads": 2, "pixel_widths": [8, 4], "ux_blocks": 1}
pytestmark = pytest.mark.usefixtures("no_figures")


def name_in_plans(dataset: Path, network: type, **options: Any) -> None:
    """Let the plans name an architecture of this package."""
    plans = load_json(str(dataset / "nnUNetPlans.json"))
    for name in ("2d", "3d_fullres"):
        architecture = plans["configurations"][name]["architecture"]
        architecture["network_class_name"] = f"{network.__module__}.{network.__name__}"
        architecture["arch_kwargs"].update(options)
    save_json(plans, str(dataset / "nnUNetPlans.json"), sort_keys=False)


# ---- plans


@pytest.mark.parametrize("recipe", [{}, {"shape": (8, 22, 18), "patch_3d": (4, 16, 16), "spacing": (5.0, 1.0, 1.0)}],
                         ids=["isotropic", "anisotropic"])  # fmt: skip
def test_plans_that_name_the_network(make_dataset, recipe):
    dataset = make_dataset(**recipe)
    name_in_plans(dataset, DKUXNet, **OWN)
    for configuration in ("3d_fullres", "2d"):
        trainer = make_trainer(dataset, nnUNetTrainerDKUXNet, configuration, training=ONE, hyperparameters=SMALL)
        trainer.run_training()
        net = trainer.network
        assert net.centres.shape == (32, 6) and len(net.encoder.trunk.stages[0]) == 1  # the plans win
        assert trainer.group_of_query.tolist() == [0, 0, 0, 1, 2, 2]
        in_force = trainer.settings_in_force()["hyperparameters"]
        assert (in_force["queries"], in_force["pixel_width"], in_force["layers_per_level"]) == (6, 8, 2)
        table = pd.read_csv(Path(trainer.output_folder, "semi_supervised.csv"))
        assert table.filter(regex="^loss_").gt(0).all(axis=None) and len(table.filter(regex="^loss_").columns) == 5


@pytest.mark.parametrize(
    ("trainer_class", "network"),
    [(nnUNetTrainerSupervised, UXNet), (nnUNetTrainerSupervised, DKUXNet), (nnUNetTrainerMeanTeacher, UXNet)],
)
def test_other_trainers_use_the_networks_with_deep_supervision(make_dataset, trainer_class, network):
    dataset = make_dataset()
    name_in_plans(dataset, network, **({} if network is UXNet else OWN))
    trainer = make_trainer(dataset, trainer_class, "2d", training=ONE)
    trainer.run_training()
    assert type(trainer.network) is network and trainer.enable_deep_supervision
    assert all(math.isfinite(v) for v in trainer.logger.get_value("train_losses", None))
    trainer.set_deep_supervision_enabled(False)
    assert trainer.network.eval()(torch.randn(1, 1, 16, 16)).shape == (1, 3, 16, 16)


@pytest.mark.parametrize("recipe", [{}, {"shape": (8, 22, 18), "patch_3d": (4, 16, 16), "spacing": (5.0, 1.0, 1.0)}],
                         ids=["isotropic", "anisotropic"])  # fmt: skip
@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_the_strong_view_blanks_a_box(make_dataset, recipe, configuration):
    trainer = make_trainer(make_dataset(preprocess=False, **recipe), nnUNetTrainerDKUXNet, configuration)
    patch = trainer.configuration_manager.patch_size
    view = trainer.make_strong_view(anisotropic=False)
    box = view.transforms.transforms[-1]
    assert box.apply_probability == 0.3
    box.apply_probability = 1.0
    view.transforms.transforms[:] = [box]
    torch.manual_seed(0)
    np.random.seed(0)
    seen = set()
    for _ in range(60):
        image = view(torch.ones(1, 1, *patch))[0, 0]
        edges = [
            int(image.eq(0).any(tuple(a for a in range(image.ndim) if a != axis)).sum()) for axis in range(image.ndim)
        ]
        assert image.eq(0).sum() == math.prod(edges)  # one box
        assert all(max(1, 0.1 * n) <= edge <= max(1, 0.25 * n) for edge, n in zip(edges, patch, strict=True))
        seen.add(edges[-1])
    assert seen == {2, 3, 4}  # of 16


# ---- optimisation


def test_weight_decay_is_for_weights_alone(make_dataset):
    trainer = make_trainer(make_dataset(), nnUNetTrainerDKUXNet, "2d", training=None, hyperparameters=SMALL)
    trainer.initialize()
    decaying, others = trainer.optimizer.param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.01, 0.0)
    assert {decaying["lr"], others["lr"]} == {1e-4} and decaying["betas"] == (0.9, 0.999)
    names = {id(p): name for name, p in trainer.network.named_parameters()}
    decayed = {names[id(p)] for p in decaying["params"]}
    kept = {names[id(p)] for p in others["params"]}
    assert decayed | kept == set(names.values()) and not decayed & kept
    assert all(name.endswith("weight") for name in decayed)
    assert {"centres", "predictor.temperature.weight", "encoder.trunk.stages.0.0.scale"} <= kept
    assert all(p.ndim > 1 for p in decaying["params"]) and "class_head.layers.0.weight" in decayed
    assert trainer.settings_in_force()["training"]["optimizer"] == "adamw"


# ---- memory


def test_a_step_needs_the_memory_that_is_estimated_from_the_plans(make_dataset):
    """The whole step with its losses, two views of two labelled and two unlabelled patches."""
    dataset = make_dataset()
    plans = load_json(str(dataset / "nnUNetPlans.json"))
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] = [16, 32, 64]
    save_json(plans, str(dataset / "nnUNetPlans.json"), sort_keys=False)
    trainer = started(dataset, "3d_fullres", hyperparameters={"query_width": 64, "warmup_fraction": 0.0})
    labeled, unlabeled = batch_of(trainer)
    assert labeled.strong.shape == unlabeled.strong.shape
    terms = []
    measured = 4 * saved_floats(trainer.network, lambda: terms.append(trainer.losses(labeled, unlabeled)))
    assert trainer.activation_memory() == pytest.approx(measured, rel=0.15)
    assert f"{trainer.activation_memory() / 2**30:.2g} GiB" in Path(trainer.log_file).read_text()


# ---- the paper's preset


def test_paper_preset(make_dataset):
    dataset = make_dataset(labels={"background": 0, "ball": (1, 2)} | {"box": 2}, regions_class_order=(1, 2))
    regions = make_trainer(dataset, nnUNetTrainerDKUXNet_paper, "2d", training=None, hyperparameters={"queries": 24})
    regions.initialize()
    assert regions.group_of_query.tolist() == [0] * 16 + [1] * 8 and not isinstance(regions.loss, DiceCELoss)
    assert nnUNetTrainerDKUXNet_paper.default_group_sizes(128, 3) == [16, 4, 108]


def test_paper_preset_has_the_published_loss_and_norms(make_dataset):
    trainer = make_trainer(make_dataset(preprocess=False), nnUNetTrainerDKUXNet_paper, "2d", training=None,
                           hyperparameters={**SMALL, "group_sizes": [4, 2, 2]})  # fmt: skip
    trainer.initialize()
    (group,) = trainer.optimizer.param_groups
    assert len(group["params"]) == len([*trainer.network.parameters()])  # weight decay of all
    assert isinstance(trainer.loss, DiceCELoss) and trainer.network.class_head.flat
    assert any(isinstance(m, nn.BatchNorm2d) for m in trainer.network.modules())
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 1, 4, 4)).short()
    p, y = logits.softmax(1), torch.stack([(target[:, 0] == c).float() for c in range(3)], 1)
    dice = (2 * (p * y).sum((2, 3)) + 1e-5) / (p.sum((2, 3)) + y.sum((2, 3)) + 1e-5)
    expected = nn.functional.cross_entropy(logits, target[:, 0].long()) + 1 - dice.mean()
    torch.testing.assert_close(trainer.loss(logits, target), expected)


@pytest.mark.parametrize("norms", ["independent", "batch"])
def test_batch_norms_become_synchronised_ones_that_compute_the_same(norms):
    net = DKUXNet(1, 3, [4, 8, 8], nn.Conv2d, 3, [1, 2, 2], 2, queries=4, query_width=16, norms=norms)
    before = [name for name, module in net.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    images, own = torch.randn(2, 1, 16, 16), copy.deepcopy(net)
    trained, predicted = own(images).logits, own.eval()(images)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    torch.testing.assert_close(converted(images).logits, trained)
    torch.testing.assert_close(converted.eval()(images), predicted)
    after = [name for name, module in converted.named_modules() if isinstance(module, nn.SyncBatchNorm)]
    assert before == after and "predictor.temperature" in after
