"""Training runs with DKUXNet: plans that name the network, optimisation, prediction, presets, and what is refused."""

from __future__ import annotations

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
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.trainers import find_trainer
from nnunet_ssl.trainers.dkuxnet.paper import nnUNetTrainerDKUXNet_paper
from nnunet_ssl.trainers.dkuxnet.trainer import nnUNetTrainerDKUXNet
from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_ssl.trainers.supervised import nnUNetTrainerSupervised
from nnunet_ssl.trainers.uxnet import nnUNetTrainerUXNet
from tests.running import SHORT, make_trainer
from tests.saved_memory import saved_floats
from tests.trainers.dkuxnet.test_trainer import REGIONS, SMALL, batch_of, started

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


# ---- refused


def test_what_does_not_fit_is_refused_before_anything_is_written(make_dataset):
    dataset = make_dataset(preprocess=False, patch_2d=(18, 16))
    for trainer in (nnUNetTrainerDKUXNet, nnUNetTrainerUXNet):
        with pytest.raises(SemiSupervisedError, match=r"cannot train 2d .* \[18, 16\] must be divisible .* \[4, 4\]"):
            make_trainer(dataset, trainer, "2d")
    for wrong, message in (
        ({"groups": 4}, "4 groups"),
        ({"group_sizes": [30, 1, 2]}, r"32 queries .* \[30, 1, 2\]"),
        ({"group_sizes": [30, 2, 0]}, r"\[30, 2, 0\]"),
        ({"kmax_levels": [0]}, "kmax_levels"),
        ({"query_width": 40}, "query_width 40"),
        ({"contrast": "map", "temperature": 0.0}, "(?s)contrast.*temperature"),
    ):
        with pytest.raises(SemiSupervisedError, match=message):
            make_trainer(dataset, nnUNetTrainerDKUXNet, "3d_fullres", hyperparameters=wrong)
    plans = load_json(str(dataset / "nnUNetPlans.json"))
    del plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["strides"]
    save_json(plans, str(dataset / "nnUNetPlans.json"))
    with pytest.raises(NotImplementedError, match=r"DKUXNet cannot be built from plans of .*PlainConvUNet.*strides"):
        make_trainer(dataset, nnUNetTrainerDKUXNet)
    name_in_plans(dataset, DKUXNet)
    with pytest.raises(NotImplementedError, match=r"support nnunet_ssl.*DKUXNet.*more than a segmentation"):
        make_trainer(dataset, nnUNetTrainerMeanTeacher)
    results = dataset.parents[1] / "nnUNet_results"
    assert not results.exists() or not list(results.iterdir())


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


def test_regions_have_two_groups(make_dataset):
    dataset = make_dataset(preprocess=False, **REGIONS)
    make_trainer(dataset, nnUNetTrainerDKUXNet, hyperparameters={"groups": 2})
    with pytest.raises(NotImplementedError, match="two query groups with regions, not 3"):
        make_trainer(dataset, nnUNetTrainerDKUXNet, hyperparameters={"groups": 3})


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
    trainer.lr_scheduler.step(500)
    assert decaying["lr"] == pytest.approx(1e-4 * 0.5**0.9)


@pytest.mark.parametrize(
    ("training", "optimizer", "lr", "decay"),
    [
        ({"optimizer": "sgd"}, torch.optim.SGD, 0.01, 3e-5),
        ({"optimizer": "adamw"}, torch.optim.AdamW, 1e-4, 0.01),
        ({"initial_lr": 0.002, "weight_decay": 0.1}, torch.optim.AdamW, 0.002, 0.1),
    ],
)
def test_the_settings_block_wins(make_dataset, training, optimizer, lr, decay):
    trainer = make_trainer(make_dataset(preprocess=False), nnUNetTrainerUXNet, "2d", training=training)
    trainer.initialize()
    group = trainer.optimizer.param_groups[0]
    assert type(trainer.optimizer) is optimizer and (group["lr"], group["weight_decay"]) == (lr, decay)


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


# ---- prediction and resume


# ---- the paper's preset


def test_paper_preset(make_dataset):
    dataset = make_dataset(labels={"background": 0, "ball": (1, 2)} | {"box": 2}, regions_class_order=(1, 2))
    regions = make_trainer(dataset, nnUNetTrainerDKUXNet_paper, "2d", training=None, hyperparameters={"queries": 24})
    regions.initialize()
    assert regions.group_of_query.tolist() == [0] * 16 + [1] * 8 and not isinstance(regions.loss, DiceCELoss)
    assert nnUNetTrainerDKUXNet_paper.default_group_sizes(128, 3) == [16, 4, 108]


def test_paper_preset_trains(make_dataset):
    dataset = make_dataset()
    switches = {**SMALL, "group_sizes": [4, 2, 2], "warmup_fraction": 0.0}
    training = {k: v for k, v in ONE.items() if k not in ("optimizer", "initial_lr")}
    trainer = make_trainer(dataset, nnUNetTrainerDKUXNet_paper, "2d", training=training, hyperparameters=switches)
    trainer.run_training()
    (group,) = trainer.optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (1e-4, 0.01) and len(group["params"]) == len(
        [*trainer.network.parameters()]
    )
    trainer.lr_scheduler.step(1)
    assert group["lr"] == 1e-4 and not trainer.recipe.clipped
    assert trainer.inference_allowed_mirroring_axes is None
    labeled, unlabeled = trainer.split_batch(next(trainer.dataloader_train))
    assert len(labeled) == len(unlabeled.weak) == 1
    assert trainer.dataloader_train.data_loader.labeled.oversample_foreground_percent == 0.0
    assert isinstance(trainer.loss, DiceCELoss) and trainer.network.class_head.flat
    assert any(isinstance(m, nn.BatchNorm2d) for m in trainer.network.modules())
    published = make_trainer(dataset, nnUNetTrainerDKUXNet_paper, training=None)
    assert published.num_epochs * published.num_iterations_per_epoch == 40_000
    assert make_trainer(dataset, find_trainer("nnUNetTrainerDKUXNet_paper_9epochs"), training=None).num_epochs == 9
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 1, 4, 4)).short()
    p, y = logits.softmax(1), torch.stack([(target[:, 0] == c).float() for c in range(3)], 1)
    dice = (2 * (p * y).sum((2, 3)) + 1e-5) / (p.sum((2, 3)) + y.sum((2, 3)) + 1e-5)
    expected = nn.functional.cross_entropy(logits, target[:, 0].long()) + 1 - dice.mean()
    torch.testing.assert_close(trainer.loss(logits, target), expected)


def test_batch_norms_become_synchronised_ones():
    net = DKUXNet(1, 3, [4, 8, 8], nn.Conv2d, 3, [1, 2, 2], 2, queries=4, query_width=16, norms="batch")
    before = [name for name, module in net.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    after = [name for name, module in converted.named_modules() if isinstance(module, nn.SyncBatchNorm)]
    assert before == after and "predictor.temperature" in after
