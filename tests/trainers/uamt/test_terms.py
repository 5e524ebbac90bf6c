"""Which voxels the student learns from, and what the teacher's passes look like."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from nnunet_ssl.losses.consistency import softmax_mse
from nnunet_ssl.losses.uncertainty import predictive_entropy
from nnunet_ssl.trainers.uamt.pass_dropout import PassDropout
from tests.trainers.inside import in_second_step
from tests.trainers.registered import make_registered

pytestmark = pytest.mark.usefixtures("no_figures")
TRAINING = {"num_epochs": 1, "num_iterations_per_epoch": 2, "seed": 1}


def started(dataset: Path, **hyperparameters: Any) -> Any:
    trainer = make_registered(
        dataset, "nnUNetTrainerUAMT", "2d", split="n2", training=TRAINING, hyperparameters=hyperparameters
    )
    return in_second_step(trainer)


def logits(*first: float) -> torch.Tensor:
    """(1, 2, 1, n) of voxels with these probabilities of the first class."""
    p = torch.tensor(first)
    return torch.stack((p, 1 - p)).log().view(1, 2, 1, -1)


# ---- the passes


def test_uncertainty_is_the_entropy_of_the_mean_of_the_passes(ready_dataset):
    trainer = started(ready_dataset(), passes=2)
    answers = iter([logits(0.9), logits(0.5)])
    trainer.teacher = lambda images: next(answers)
    assert trainer.uncertainty(torch.zeros(1, 1, 1, 1)).item() == pytest.approx(0.61086230, abs=1e-6)


def test_passes_without_chance_are_one(ready_dataset):
    trainer = started(ready_dataset(), passes=3, noise_std=0.0, teacher_dropout=0.0)
    _, unlabeled = trainer.split_batch(next(trainer.dataloader_train))
    once = predictive_entropy(trainer.teacher(unlabeled.weak).softmax(1))
    torch.testing.assert_close(trainer.uncertainty(unlabeled.weak), once)


def test_each_pass_has_noise_and_dropout_of_its_own_and_the_target_no_dropout(ready_dataset):
    trainer = started(ready_dataset(), noise_std=0.0)
    images = torch.randn(2, 1, 16, 16)
    with trainer.dropout.on():
        passes = [trainer.teacher(images) for _ in range(2)]
    assert not torch.equal(*passes)
    target = trainer.teacher(images)
    assert torch.equal(target, trainer.teacher(images)) and not torch.equal(target, passes[0])
    before = trainer.auxiliary["teacher"].state_dict().keys()
    assert before == trainer.network.state_dict().keys()  # nothing that an exported network would not know
    trainer.dropout = None
    trainer.hyperparameters = SimpleNamespace(passes=2, noise_std=0.1, noise_clip=0.2)
    seen: list[torch.Tensor] = []
    trainer.teacher = lambda x: seen.append(x) or target
    trainer.uncertainty(images)
    assert len(seen) == 2 and not torch.equal(*seen) and (seen[0] - images).abs().max() <= 0.2 + 1e-6


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.transpconvs = nn.ModuleList([nn.Identity(), nn.Identity()])
        self.seg_layers = nn.ModuleList([nn.Identity(), nn.Identity()])


def test_channels_are_dropped_at_the_bottleneck_and_before_the_last_layer():
    torch.manual_seed(0)
    net = nn.Module()
    net.decoder = Decoder()
    dropout = PassDropout(net, 0.25, torch.device("cpu"))
    maps = torch.ones(2, 2000, 2, 2)
    for module in (net.decoder.transpconvs[0], net.decoder.seg_layers[1]):
        with dropout.on():
            found = module(maps)
        channels = found.flatten(2)
        assert (channels == channels[..., :1]).all() and not torch.equal(channels[0], channels[1])
        assert sorted(found.unique().tolist()) == pytest.approx([0.0, 4 / 3])
        assert found.mean().item() == pytest.approx(1.0, abs=0.03)
        assert torch.equal(module(maps), maps)
    with dropout.on():
        assert torch.equal(net.decoder.transpconvs[1](maps), maps)
        assert torch.equal(net.decoder.seg_layers[0](maps), maps)


def test_a_network_without_such_a_decoder_is_refused():
    with pytest.raises(NotImplementedError, match="Conv2d has no decoder .* teacher_dropout=0"):
        PassDropout(nn.Conv2d(1, 1, 1), 0.5, torch.device("cpu"))


# ---- the voxels


@pytest.mark.parametrize(("literal", "classes"), [(False, 3), (True, 2)])
def test_threshold_rises_to_the_largest_entropy(ready_dataset, literal, classes):
    trainer = started(ready_dataset(), threshold_start=0.75, literal_ln2=literal)
    for step, share in ((0, 0.75 + 0.25 * math.exp(-5)), (1, 0.75 + 0.25 * math.exp(-1.25)), (2, 1.0)):
        trainer.step = step
        assert trainer.threshold == pytest.approx(share * math.log(classes))


def test_certain_voxels_alone_count(ready_dataset, monkeypatch):
    """p_S = (.8, .2), (.6, .4), p_T = (.9, .1), (.2, .8): .01 where the first is certain, .085 where both are."""
    trainer = started(ready_dataset())
    student, teacher = logits(0.8, 0.6), logits(0.9, 0.2)
    unlabeled = SimpleNamespace(weak=None, valid=torch.ones(1, 1, 1, 2, dtype=torch.bool))

    def loss(*uncertainty: float) -> float:
        monkeypatch.setattr(trainer, "uncertainty", lambda images: torch.tensor(uncertainty).view(1, 1, 1, 2))
        return trainer.consistency(student, teacher, trainer.followed(teacher, unlabeled)).item()

    assert loss(0.1, 5.0) == pytest.approx(0.01, abs=1e-6)
    assert loss(0.1, 0.1) == pytest.approx(0.085, abs=1e-6)
    assert loss(0.1, 0.1) == pytest.approx(softmax_mse(student, teacher).item())  # as Mean Teacher has it
    assert loss(5.0, 5.0) == 0.0
    unlabeled.valid[..., 1] = False
    assert loss(0.1, 0.1) == pytest.approx(0.01, abs=1e-6)


def test_a_teacher_that_is_the_student_without_noise_teaches_nothing(ready_dataset):
    """Neither noise nor dropout; every voxel is certain, and a teacher of other weights does teach."""
    trainer = started(ready_dataset(), noise_std=0.0, teacher_dropout=0.0, threshold_start=1.0, guard=False)
    labeled, unlabeled = trainer.split_batch(next(trainer.dataloader_train))
    assert (trainer.uncertainty(unlabeled.weak) < trainer.threshold).all()
    terms = trainer.losses(labeled, unlabeled)
    assert terms["consistency"].item() == pytest.approx(0.0, abs=1e-12) and terms.weights["consistency"] > 0.02
    with torch.no_grad():
        for parameter in trainer.auxiliary["teacher"].parameters():
            parameter.mul_(1.5)
    assert trainer.losses(labeled, unlabeled)["consistency"].item() > 1e-6


def test_released_divisor_is_two_for_any_number_of_classes(ready_dataset, monkeypatch):
    student, teacher = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    unlabeled = SimpleNamespace(weak=None, valid=torch.ones(1, 1, 4, 4, dtype=torch.bool))
    found = []
    for literal in (False, True):
        trainer = started(ready_dataset(), literal_ln2=literal)
        monkeypatch.setattr(trainer, "uncertainty", lambda images: torch.zeros(1, 1, 4, 4))
        found.append(trainer.consistency(student, teacher, trainer.followed(teacher, unlabeled)).item())
    assert found[1] == pytest.approx(1.5 * found[0])


def test_the_teacher_rests_without_weight_and_passes_once_while_it_is_held_back(ready_dataset):
    counts = []
    for weight, held in ((0.0, 1.0), (0.1, 0.0), (0.1, 1.0)):
        trainer = started(ready_dataset(), consistency_weight=weight, passes=3)
        trainer.held = lambda w, held=held: w * held
        calls: list[int] = []
        teacher = trainer.teacher
        trainer.teacher = lambda x, calls=calls, teacher=teacher: calls.append(1) or teacher(x)
        terms = trainer.losses(*trainer.split_batch(next(trainer.dataloader_train)))
        counts.append(len(calls))
        assert ("consistency" in terms) == (weight > 0)
    assert counts == [0, 1, 4] and terms["consistency"] > 0
    assert terms.weights["consistency"] == pytest.approx(0.1 * math.exp(-5 * 0.25))
