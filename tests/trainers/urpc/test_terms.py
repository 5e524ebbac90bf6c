"""Which outputs agree, on what, and what supervises them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from torch.nn import functional as F

from nnunet_ssl.losses.pyramid_consistency import pyramid_consistency
from nnunet_ssl.trainers.urpc import trainer as urpc
from tests.trainers.inside import batch_of, in_second_step
from tests.trainers.registered import make_registered

pytestmark = pytest.mark.usefixtures("no_figures")
NAME = "nnUNetTrainerURPC"
TRAINING = {"num_epochs": 1, "num_iterations_per_epoch": 2, "seed": 1}


def started(dataset: Path, plans_name: str = "nnUNetPlans", **hyperparameters: Any) -> Any:
    """At half of its training, without dropped channels."""
    options = {"perturbation": "none", **hyperparameters}
    trainer = make_registered(
        dataset, NAME, "2d", split="n2", training=TRAINING, hyperparameters=options, plans_name=plans_name
    )
    return in_second_step(trainer)


def with_stages(dataset: Path, stages: int) -> str:
    """Name of plans whose 2D network has so many."""
    plans = load_json(str(dataset / "nnUNetPlans.json"))
    arguments = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
    arguments |= {
        "n_stages": stages,
        "features_per_stage": [4, 8, 8, 8][:stages],
        "kernel_sizes": [[3, 3]] * stages,
        "strides": [[1, 1], *[[2, 2]] * (stages - 1)],
        "n_conv_per_stage": [1] * stages,
        "n_conv_per_stage_decoder": [1] * (stages - 1),
    }
    plans["plans_name"] = f"nnUNetPlans_{stages}"
    save_json(plans, str(dataset / f"nnUNetPlans_{stages}.json"), sort_keys=False)
    return plans["plans_name"]


def test_unlabelled_outputs_are_drawn_to_their_mean(ready_dataset):
    trainer = started(ready_dataset(), consistency_weight=2.0)
    labeled, unlabeled = batch_of(trainer)
    unlabeled.valid[0, :, :5] = False
    terms = trainer.losses(labeled, unlabeled)
    with torch.no_grad():
        fine, coarse = trainer.network(unlabeled.weak)
    assert coarse.shape[2:] == (8, 8)
    weight = 2.0 * math.exp(-5 * 0.25)
    expected = weight * pyramid_consistency([fine, coarse], unlabeled.valid)
    assert terms["consistency"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert terms.weights["consistency"] == pytest.approx(weight)


def test_each_output_learns_labels_at_full_resolution(ready_dataset):
    trainer = started(ready_dataset())
    labeled, unlabeled = batch_of(trainer)
    found = trainer.losses(labeled, unlabeled)["supervised"].item()
    with torch.no_grad():
        fine, coarse = trainer.network(labeled.image)
    coarse = F.interpolate(coarse, (16, 16), mode="bilinear")
    expected = sum(trainer.loss.loss(z, labeled.target[0]).item() for z in (fine, coarse)) / 2
    assert found == pytest.approx(expected, rel=1e-5)


def test_with_deep_supervision_the_coarsest_output_stays_out(make_dataset, monkeypatch):
    dataset = make_dataset()
    plans = with_stages(dataset, 4)
    seen: list[int] = []
    monkeypatch.setattr(urpc, "pyramid_consistency", lambda scales, **_: seen.append(len(scales)) or scales[0].sum())
    for options in ({}, {"scales": 2, "full_resolution_supervision": True}, {"full_resolution_supervision": True}):
        trainer = make_registered(
            dataset, NAME, "2d", fold="all", training=TRAINING, plans_name=plans,
            hyperparameters={"full_resolution_supervision": False, **options},
        )  # fmt: skip
        trainer.on_train_start()
        trainer.step = 1
        labeled, unlabeled = batch_of(trainer)
        terms = trainer.losses(labeled, unlabeled)
        if not options:  # nnU-Net's own loss
            with torch.no_grad():
                own = trainer.loss(trainer.network(labeled.image), labeled.target)
            assert terms["supervised"].item() == pytest.approx(own.item(), rel=1e-5)
    assert seen == [2, 2, 3]


def test_channels_of_unlabelled_patches_are_dropped_before_the_layers_alone(ready_dataset):
    trainer = started(ready_dataset(), perturbation="channel")
    images = torch.randn(4, 1, 16, 16)
    layers = trainer.network.decoder.seg_layers
    inputs: list[torch.Tensor] = []
    for layer in layers:
        layer.register_forward_pre_hook(lambda module, given: inputs.append(given[0].detach()))
    torch.manual_seed(0)
    with torch.no_grad():
        plain = trainer.network(images)
        clean, inputs = inputs, []
        with trainer.dropout.of_last(2):
            trainer.network(images)
        for scale, before, after in zip((1 / 0.8, 1 / 0.9), clean, inputs, strict=True):  # the coarse one first
            assert torch.equal(before[:2], after[:2])
            factor = (after[2:] / before[2:]).flatten(2)
            kept = factor.isclose(torch.tensor(scale))
            assert (kept | (factor == 0)).all() and (kept.all(2) | (factor == 0).all(2)).all()
        assert all(torch.equal(a, b) for a, b in zip(plain, trainer.network(images), strict=True))


def test_without_weight_no_map_is_compared_but_the_guard_sees_the_outputs(ready_dataset, monkeypatch):
    trainer = started(ready_dataset())
    trainer.step = 0
    monkeypatch.setattr(trainer, "held", lambda weight: 0.0)
    monkeypatch.setattr(urpc, "pyramid_consistency", lambda *_, **__: pytest.fail("work for nothing"))
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(trainer, "observe_pseudo_labels", lambda *given: seen.extend(given))
    labeled, unlabeled = batch_of(trainer)
    assert trainer.losses(labeled, unlabeled)["consistency"] == 0
    with torch.no_grad():
        fine, coarse = trainer.network(unlabeled.weak)
    together = (fine + F.interpolate(coarse, (16, 16), mode="bilinear")) / 2
    torch.testing.assert_close(seen[0], fine)
    torch.testing.assert_close(seen[1], together)


def test_plans_without_two_supervised_outputs_are_refused(make_dataset):
    dataset = make_dataset(preprocess=False)
    off = {"full_resolution_supervision": False}
    for stages, remedy in ((3, "full_resolution_supervision=true"), (2, r"plans --features\)\.")):
        with pytest.raises(NotImplementedError, match=f"a network of {stages} stages has one.*{remedy}"):
            make_registered(dataset, NAME, "2d", hyperparameters=off, plans_name=with_stages(dataset, stages))
