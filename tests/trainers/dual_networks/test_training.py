"""Dual Networks from end to end in process: kinds of data, resume, prediction, the released preset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

from nnunet_ssl import external
from nnunet_ssl.architectures.dual_networks import DualNet
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.losses.consistency import uncertainty_rectified_cross_entropy
from nnunet_ssl.losses.squared_dice import squared_dice_ce
from nnunet_ssl.trainers import find_trainer
from nnunet_ssl.trainers.dual_networks.released import nnUNetTrainerDualNetworks_released
from nnunet_ssl.trainers.dual_networks.trainer import nnUNetTrainerDualNetworks
from tests.running import SHORT, make_trainer, same_weights, weights
from tests.trainers.dual_networks.test_trainer import (
    DISAGREEMENT,
    REGIONS,
    REGIONS_IGNORE,
    TERMS,
    batch_of,
    random_output,
)

pytestmark = pytest.mark.usefixtures("no_figures")
ONE = {**SHORT, "num_epochs": 1, "num_iterations_per_epoch": 2}
IGNORE = {"background": 0, "ball": 1, "box": 2, "ignore": 3}


def table_of(trainer: nnUNetTrainerDualNetworks) -> pd.DataFrame:
    return pd.read_csv(Path(trainer.output_folder, "semi_supervised.csv"))


@pytest.mark.parametrize(
    "switches",
    [
        {"pseudo_label_rule": "cross", "dynamic_roles": True, "hard_target": True, "channel_dropout": 0.5},
        {"sequential": True, "predict_with": "teacher", "pseudo_label_rule": "own", "unlabeled_batch_size": 1},
        {"contrast_weight": 0.0, "pseudo_label_weight": 0.0, "disagreement_weight": 0.5},
    ],
    ids=["roles", "sequential", "agreement alone"],
)
def test_switches_train(make_dataset, switches):
    trainer = make_trainer(
        make_dataset(), nnUNetTrainerDualNetworks, fold="all", training=ONE, hyperparameters=switches
    )
    trainer.run_training()
    table = table_of(trainer)
    left_out = {"contrast", "pseudo_label_student", "pseudo_label_teacher"} if "contrast_weight" in switches else set()
    assert table[[f"loss_{name}" for name in TERMS if name not in left_out]].gt(0).all(axis=None)
    assert not any(f"loss_{name}" in table for name in left_out)
    assert trainer.network.predict_with == switches.get("predict_with", "mean")


# ---- prediction


@pytest.mark.parametrize(
    ("recipe", "name"), [({}, "mean"), (REGIONS, "mean"), ({}, "student")], ids=["mean", "regions", "student"]
)
def test_nnunet_predicts_the_mean_of_both_networks(make_dataset, monkeypatch, recipe, name):
    monkeypatch.setenv("nnUNet_extTrainer", next(iter(external.__path__)))
    switches = {"predict_with": name}
    trainer = make_trainer(make_dataset(**recipe), nnUNetTrainerDualNetworks, training=ONE, hyperparameters=switches)
    trainer.run_training()
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 16, 16, 16)).astype(np.float32))  # one window
    # at the corners of a window, the Gaussian is too small for half precision
    options = {"use_gaussian": False, "use_mirroring": False, "perform_everything_on_device": False}
    predictor = nnUNetPredictor(**options, device=torch.device("cpu"))
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, (0,))
    assert type(predictor.network) is DualNet
    logits = predictor.predict_logits_from_preprocessed_data(image).float()
    network = trainer.network.eval()
    network.decoder.deep_supervision = False
    activate = torch.sigmoid if recipe else lambda z: z.softmax(0)
    with torch.no_grad():
        each = [activate(n(image[None])[0]) for n in (network.student, network.teacher)]
    expected = each[0] if name == "student" else (each[0] + each[1]) / 2
    torch.testing.assert_close(activate(logits), expected, atol=2e-3, rtol=0)  # nnU-Net adds up in half precision
    assert (each[0] - each[1]).abs().max() > 0.02


def test_pretrained_weights_of_another_kind_of_dataset(make_dataset):
    dataset = make_dataset()
    source = make_trainer(dataset, nnUNetTrainerDualNetworks)
    source.initialize()
    source.network.region_based.fill_(True)
    file = Path(source.output_folder, "source.pth")
    source.save_checkpoint(str(file))
    trainer = make_trainer(dataset, nnUNetTrainerDualNetworks, seed=5)
    trainer.initialize()
    load_pretrained_weights(trainer.network, str(file))
    trainer.on_train_start()
    assert trainer.network.region_based.item() is False
    for name in ("student", "teacher"):
        loaded, own = (getattr(t.network, name).encoder for t in (source, trainer))
        assert same_weights(weights(loaded), weights(own))


def test_other_architectures_and_settings_are_refused_before_anything_is_written(make_dataset):
    dataset = make_dataset(preprocess=False)
    wrong = {"percentile": 101.0, "temperature": 0.0, "pseudo_label_rule": "or", "predict_with": "both", "tau": 1}
    with pytest.raises(SemiSupervisedError) as error:
        make_trainer(dataset, nnUNetTrainerDualNetworks, hyperparameters=wrong)
    assert all(name in str(error.value) for name in wrong)
    plans = load_json(str(dataset / "nnUNetPlans.json"))
    plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"] = "somewhere.UMamba"
    save_json(plans, str(dataset / "nnUNetPlans.json"))
    with pytest.raises(NotImplementedError, match="PlainConvUNet or ResidualEncoderUNet in the plans, not a UMamba"):
        make_trainer(dataset, nnUNetTrainerDualNetworks)
    results = dataset.parents[1] / "nnUNet_results"
    assert not results.exists() or not list(results.iterdir())


# ---- the released preset

FEW = {"num_val_iterations_per_epoch": 1, "save_every": 1, "num_iterations_per_epoch": 2}
RELEASED = ("supervised_student", "supervised_teacher", *DISAGREEMENT, "consistency", "uncertainty")


def started(dataset: Path, **options: Any) -> nnUNetTrainerDualNetworks_released:
    trainer = make_trainer(dataset, nnUNetTrainerDualNetworks_released, **{"training": FEW, **options})
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    return trainer


def test_released_optimisation(make_dataset):
    dataset = make_dataset()
    trainer = started(dataset, training={"num_val_iterations_per_epoch": 1})
    assert type(trainer.optimizer) is torch.optim.SGD
    (group,) = trainer.optimizer.param_groups
    values = {key: group[key] for key in ("lr", "momentum", "nesterov", "weight_decay")}
    assert values == {"lr": 0.01, "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4}
    assert trainer.num_epochs * trainer.num_iterations_per_epoch == 6000
    rates = []
    for epoch in range(trainer.num_epochs):
        trainer.lr_scheduler.step(epoch)
        rates.append(group["lr"])
    # 2500 and 5000 steps are 10 and 20 epochs
    assert rates == pytest.approx([0.01] * 10 + [0.001] * 10 + [0.0001] * 4)
    assert not trainer.recipe.clipped and trainer.grad_scaler is None
    assert trainer.inference_allowed_mirroring_axes is None
    assert trainer.network.teacher_dropout == (0.5, 0.5) and trainer.network.student_dropout == (0.0, 0.5)
    batch = next(trainer.dataloader_train)
    assert isinstance(batch["target"], torch.Tensor) and len(batch["data"]) == len(batch["unlabeled"]["data"]) == 2
    block = {**SHORT, "weight_decay": 0.02, "num_epochs": 7}
    changed = started(dataset, training=block)
    assert type(changed.optimizer) is torch.optim.AdamW and changed.num_epochs == 7
    assert changed.optimizer.param_groups[0]["weight_decay"] == 0.02
    variant = make_trainer(dataset, find_trainer("nnUNetTrainerDualNetworks_released_3epochs"), training=None)
    assert variant.num_epochs == 3 and variant.hyperparameters == trainer.hyperparameters


@pytest.mark.parametrize("recipe", [{}, {"labels": IGNORE}, REGIONS_IGNORE], ids=["classes", "ignore", "regions"])
def test_released_objective(make_dataset, recipe):
    trainer = started(make_dataset(**recipe), hyperparameters={"disagreement_threshold": 0.4})
    labeled, unlabeled = batch_of(trainer)
    channels = trainer.label_manager.num_segmentation_heads
    out = random_output(labeled, unlabeled, channels)
    out = out._replace(student=out.student[0], teacher=out.teacher[0])
    trainer.forward = lambda *_: out
    terms = trainer.losses(labeled, unlabeled)
    assert tuple(terms) == RELEASED and all(term.item() > 0 for term in terms.values())
    torch.testing.assert_close(
        terms["uncertainty"],
        uncertainty_rectified_cross_entropy(
            trainer.targets.as_classes(out.student), trainer.targets.as_classes(out.teacher), hard_target=True
        ),
    )
    target = labeled.target
    if recipe is REGIONS_IGNORE:
        assert target.shape[1] == 3
        pairs = torch.stack((torch.zeros_like(out.student[:2]), out.student[:2]), 2).flatten(0, 1)
        annotated = target[:, 2:] == 0
        expected = squared_dice_ce(pairs, target[:, :2].reshape(4, 1, 16, 16, 16), annotated.repeat_interleave(2, 0))
    else:
        expected = squared_dice_ce(out.student[:2], target, target != 3)
    torch.testing.assert_close(terms["supervised_student"], expected)


def test_the_winner_of_the_released_script_makes_no_difference(make_dataset):
    trainer = started(make_dataset(), hyperparameters={"channel_dropout": 0.0})
    batch = batch_of(trainer)
    gradients = []
    for winner in ("student", "teacher"):
        trainer.network.zero_grad()
        terms = trainer.losses(*batch)
        own = {n: sum(v for k, v in terms.items() if k.endswith(n)) for n in ("student", "teacher")}
        own[winner] = own[winner] + terms["consistency"] + terms["uncertainty"]
        own["student"].backward(retain_graph=True)
        own["teacher"].backward()
        gradients.append([None if p.grad is None else p.grad.clone() for p in trainer.network.parameters()])
    assert any(g is not None and g.any() for g in gradients[0])
    for first, second in zip(*gradients, strict=True):
        assert (first is None) == (second is None)
        if first is not None:
            torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-5)
