"""What the distance learns, what it says of the segmentation, and what a discriminator says of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_ssl.architectures.discriminator import MapDiscriminator
from nnunet_ssl.losses.distance_transform import distance_to_mask
from nnunet_ssl.trainers.distance_targets import DISTANCE
from nnunet_ssl.trainers.dtc.adversary import Adversary
from nnunet_ssl.training.deep_supervision import finest
from tests.trainers.inside import batch_of, in_second_step
from tests.trainers.registered import make_registered
from tests.trainers.stepping import steps

pytestmark = pytest.mark.usefixtures("no_figures")
TRAINING = {"num_epochs": 2, "num_iterations_per_epoch": 2, "seed": 1}
REGIONS = {"labels": {"background": 0, "whole": (1, 2), "box": 2}, "regions_class_order": (1, 2)}


def made(dataset: Path, **hyperparameters: Any) -> Any:
    options = {"rampup_fraction": 1e-6, "guard": False} | hyperparameters
    return make_registered(dataset, "nnUNetTrainerDTC", "2d", split="n2", training=TRAINING, hyperparameters=options)


def started(dataset: Path, **hyperparameters: Any) -> Any:
    """At the end of its ramp."""
    trainer = made(dataset, **hyperparameters)
    return in_second_step(trainer)


def predicted(trainer: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and distances, without gradient."""
    with torch.no_grad(), trainer.feature_tap.open():
        logits = finest(trainer.network(images))
        return logits, trainer.auxiliary["distance_head"](trainer.feature_tap.take())


@pytest.mark.parametrize("recipe", [{}, REGIONS], ids=["classes", "regions"])
def test_terms_of_a_step(ready_dataset, recipe):
    trainer = started(ready_dataset(**recipe), consistency_weight=2.0, steepness=50.0)
    labeled, unlabeled = batch_of(trainer)
    labeled.valid[0, :, :4] = False
    unlabeled.valid[1, :, :7] = False
    terms = trainer.losses(labeled, unlabeled)
    logits, distance = predicted(trainer, torch.cat([labeled.image, unlabeled.weak]))
    assert distance.shape == (4, 2, 16, 16) and distance.abs().max() < 0.1  # small at first
    maps = labeled.extra[DISTANCE]
    expected = (distance[:2] - maps).square().mean(1, keepdim=True)[labeled.valid].mean()
    assert terms["distance"].item() == pytest.approx(0.3 * expected.item(), rel=1e-5)
    p = logits.sigmoid() if recipe else logits.softmax(1)[:, 1:]
    shown = (maps < 0).flatten(2).any(2) | (maps == 0).flatten(2).any(2)
    counted = torch.cat([labeled.valid & shown[..., None, None], unlabeled.valid.expand(2, 2, 16, 16)])
    expected = (distance_to_mask(distance, 50.0) - p).square()[counted].mean()
    assert terms["consistency"].item() == pytest.approx(2.0 * expected.item(), rel=1e-5)
    with torch.no_grad():
        control = trainer.loss(trainer.network(labeled.image), labeled.target)
    assert terms["supervised"].item() == pytest.approx(control.item(), rel=1e-5)


def test_a_class_that_a_labelled_patch_does_not_show_is_left_out(ready_dataset):
    trainer = started(ready_dataset())
    labeled, unlabeled = batch_of(trainer)
    finest(labeled.target)[:] = 0
    unlabeled.valid[:] = False
    logits, distance = predicted(trainer, torch.cat([labeled.image, unlabeled.weak]))
    assert trainer.consistency(distance, logits, labeled, unlabeled) == 0
    finest(labeled.target)[1, 0, 0, 0] = 2
    found = trainer.consistency(distance, logits, labeled, unlabeled)
    expected = (distance_to_mask(distance[1, 1]) - logits.softmax(1)[1, 2]).square()[labeled.valid[1, 0]].mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_distances_as_a_decision(ready_dataset):
    trainer = made(ready_dataset())
    trainer.initialize()
    distance = torch.tensor([[0.3, -0.1, -0.2], [0.2, 0.4, -0.9]]).view(1, 2, 3)
    assert trainer.targets.decide(trainer.as_logits(distance)).flatten().tolist() == [0, 1, 2]
    trainer.targets.has_regions = True
    assert trainer.targets.decide(trainer.as_logits(distance)).tolist() == (distance < 0).tolist()


@pytest.mark.parametrize("prior", ["none", "adversarial"])
def test_without_weight_no_unlabelled_patch_is_looked_at(ready_dataset, prior):
    trainer = started(ready_dataset(), shape_prior=prior, consistency_weight=0.0, adversarial_weight=0.0)
    seen = []
    trainer.network.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    assert [*trainer.losses(*batch_of(trainer))] == ["supervised", "distance"] and seen == [2]
    assert [*trainer.auxiliary] == ["distance_head"]


# ---- SASSNet


def test_without_any_weight_the_loss_is_nnu_nets_and_the_head_learns_nothing(ready_dataset):
    trainer = started(ready_dataset(), consistency_weight=0.0, distance_weight=0.0)
    labeled, unlabeled = batch_of(trainer)
    terms = trainer.losses(labeled, unlabeled)
    stock = trainer.loss(trainer.network(labeled.image), labeled.target)
    assert sum(terms.values()).item() == pytest.approx(stock.item(), rel=1e-6)
    sum(terms.values()).backward()
    gradients = [p.grad for p in trainer.auxiliary["distance_head"].parameters()]
    assert gradients and all(g is not None and not g.any() for g in gradients)  # none at all would stop DDP


def test_the_adversarial_term_teaches_the_network_from_unlabelled_patches_alone(ready_dataset):
    trainer = started(ready_dataset(), shape_prior="adversarial", adversarial_weight=0.5)
    labeled, unlabeled = batch_of(trainer)
    images = [labeled.image.requires_grad_(), unlabeled.weak.requires_grad_()]
    terms = trainer.losses(labeled, unlabeled)
    assert [*terms] == ["supervised", "distance", "adversarial"] and terms.weights["adversarial"] == 0.5
    discriminator, head = (trainer.auxiliary[n] for n in ("discriminator", "distance_head"))
    assert not any(p.requires_grad for p in discriminator.parameters())
    reached = torch.autograd.grad(terms["adversarial"], [head.conv.weight, *images], allow_unused=True)
    assert reached[0].any() and not reached[1].any() and reached[2].any()
    _, distance = predicted(trainer, unlabeled.weak)
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(
            discriminator.eval()(distance, unlabeled.weak), torch.ones(2).long()
        )
    assert terms["adversarial"].item() == pytest.approx(0.5 * expected.item(), rel=1e-5)


def test_a_step_trains_the_discriminator_with_its_own_optimiser(ready_dataset):
    trainer = started(ready_dataset(), shape_prior="adversarial")
    parameters = [*trainer.auxiliary["discriminator"].parameters()]
    of_networks = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert not any(id(p) in of_networks for p in parameters)
    before = [p.detach().clone() for p in parameters]
    trainer.losses(*batch_of(trainer))
    assert all(torch.equal(p, b) for p, b in zip(parameters, before, strict=True))
    trainer.train_step(next(trainer.dataloader_train))
    assert all(not torch.equal(p, b) and p.grad is None for p, b in zip(parameters, before, strict=True))
    assert 0 < trainer.monitor.epoch_means()["discriminator"] < 2


def test_a_discriminator_learns_to_tell_maps_apart():
    torch.manual_seed(0)
    adversary = Adversary(MapDiscriminator(1, 1, (16, 16), width=4))
    images = torch.randn(2, 1, 16, 16).repeat(2, 1, 1, 1)
    for group in adversary.optimizer.param_groups:
        assert (group["lr"], group["betas"]) == (1e-4, (0.9, 0.99))
        group["lr"] = 0.01
    same = torch.rand(2, 1, 16, 16).repeat(2, 1, 1, 1)
    labels = torch.tensor([True, True, False, False])
    adversary.discriminator.eval()
    assert adversary._error(same, images, labels) >= math.log(2)  # nothing to tell apart
    maps = torch.cat([torch.ones(2, 1, 16, 16), -torch.ones(2, 1, 16, 16)]).requires_grad_()
    errors = []
    for _ in range(30):
        adversary.deceived(maps, images, 2)
        errors.append(adversary.learn().item())
    fooled = adversary.deceived(maps, images, 2)
    assert errors[-1] < 0.1 < math.log(2) < fooled.item()
    (gradient,) = torch.autograd.grad(fooled, maps)
    assert not gradient[:2].any() and gradient[2:].any() and maps.grad is None


def test_its_optimiser_continues_from_the_checkpoint(ready_dataset, tmp_path):
    trainer = made(ready_dataset(), shape_prior="adversarial")
    list(steps(trainer, 2))
    trainer.save_checkpoint(str(tmp_path / "c.pth"))
    other = made(ready_dataset(), shape_prior="adversarial")
    other.load_checkpoint(str(tmp_path / "c.pth"))
    mine, theirs = (t.adversary.optimizer.state_dict()["state"] for t in (trainer, other))
    assert mine.keys() == theirs.keys() and len(mine) == len([*trainer.auxiliary["discriminator"].parameters()])
    assert all(torch.equal(mine[k][name], theirs[k][name]) for k in mine for name in ("step", "exp_avg", "exp_avg_sq"))
