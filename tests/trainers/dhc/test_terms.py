"""Which weights of the classes each network has, and where they count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from nnunet_ssl.losses.class_weights import DifficultyWeights, distribution_weights
from nnunet_ssl.losses.pseudo_label import pseudo_cross_entropy
from nnunet_ssl.trainers.dhc.difficulty import Difficulty, hard_dice
from nnunet_ssl.training.deep_supervision import finest
from tests.trainers.inside import in_second_step
from tests.trainers.registered import make_registered

pytestmark = pytest.mark.usefixtures("no_figures")
NAME = "nnUNetTrainerDHC"
TRAINING = {"num_epochs": 1, "num_iterations_per_epoch": 2, "seed": 1}


def started(dataset: Path, **hyperparameters: Any) -> Any:
    """At the end of its ramp."""
    options = {"rampup_fraction": 1e-6, **hyperparameters}
    trainer = make_registered(dataset, NAME, "2d", split="n2", training=TRAINING, hyperparameters=options)
    return in_second_step(trainer)


def one_hot(label: torch.Tensor, classes: int) -> torch.Tensor:
    return F.one_hot(label[:, 0], classes).movedim(-1, 1).float()


EVERYWHERE = torch.ones(1, 1, 2, 3, dtype=torch.bool)


# ---- the weights


def test_dice_of_what_is_decided():
    label = torch.tensor([[0, 0, 1], [1, 2, -1]]).view(1, 1, 2, 3)
    decided = torch.tensor([[0, 1, 1], [1, 0, 3]]).view(1, 1, 2, 3)  # the last voxel does not count
    dice, present = hard_dice(decided, label, 4)
    assert dice.tolist() == pytest.approx([2 / 4, 4 / 5, 0.0, 0.5], abs=1e-6)
    assert present.tolist() == [True, True, True, False]


@pytest.mark.parametrize("keep_absent", [True, False])
def test_first_network_follows_the_dice_of_labelled_patches(ready_dataset, keep_absent):
    trainer = started(ready_dataset(), keep_absent=keep_absent)
    own = trainer.balances[0]
    assert isinstance(own, Difficulty) and own.weights().tolist() == [3.0, 3.0, 3.0]
    by_hand = DifficultyWeights(3)
    label = torch.tensor([[0, 0, 0], [1, 1, 1]]).view(1, 1, 2, 3)
    for decided, dice in (([[0, 0, 1], [1, 1, 0]], [2 / 3, 2 / 3, 0.5]), ([[0, 0, 0], [1, 1, 0]], [6 / 7, 0.8, 0.5])):
        decided = torch.tensor(decided).view(1, 1, 2, 3)
        own.observe(torch.full_like(decided, 2), EVERYWHERE, one_hot(decided, 3), label)
        present = torch.tensor([True, True, not keep_absent])  # class 2 is unlabelled alone, which does not matter
        expected = by_hand.update(torch.tensor(dice), present)
    torch.testing.assert_close(own.weights(), expected.clamp(min=0.03))
    assert own.weights()[2] == 3.0 and own.weights()[0] < own.weights()[1]  # class 1 gained less


def test_second_network_follows_what_it_predicts(ready_dataset):
    trainer = started(ready_dataset(), dist_momentum=0.9)
    own = trainer.balances[1]
    start = own.weights().clone()
    assert start[0] == pytest.approx(0.03) and (start[1:] > 1).all()  # of the labelled cases
    decided = torch.tensor([[0, 1, 1], [1, 1, 2]]).view(1, 1, 2, 3)
    valid = EVERYWHERE.clone()
    valid[..., 0, 0] = False
    own.observe(decided, valid, torch.zeros(1, 3, 2, 3), decided)
    # nothing of class 0 counts, and no voxel as one: with four voxels of class 1 the rare ones have the whole weight
    expected = 0.9 * start + 0.1 * torch.tensor([3.0, 0.03, 3.0])
    torch.testing.assert_close(own.weights(), expected)
    own.observe(decided, EVERYWHERE, torch.zeros(1, 3, 2, 3), decided)
    counted = distribution_weights(torch.tensor([1.0, 4.0, 1.0])).clamp(min=0.03)
    torch.testing.assert_close(own.weights(), 0.9 * expected + 0.1 * counted)


def test_without_floor_the_most_frequent_class_has_no_weight_and_teaches_nothing(ready_dataset):
    trainer = started(ready_dataset(), weight_floor=0.0)
    own = trainer.balances[1]
    assert own.weights()[0] == 0
    logits = torch.randn(1, 3, 2, 3, requires_grad=True)
    background = torch.zeros(1, 1, 2, 3, dtype=torch.long)
    loss = trainer.cross(logits, background, EVERYWHERE, own)
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def test_eight_classes_of_very_different_size(ready_dataset):
    """1 to 1000 voxels: no weight is NaN, infinite or outside its bounds, also where a patch is background alone."""
    trainer = started(ready_dataset())
    trainer.targets.channels = 8
    counts = torch.tensor([1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.0])
    label = torch.arange(8).repeat_interleave(counts.long()).view(1, 1, 1, -1)
    balances = trainer.build_balances()
    balances[1]._labelled = lambda classes: counts.tolist()
    valid = torch.ones_like(label, dtype=torch.bool)
    logits = torch.randn(1, 8, 1, label.shape[-1], generator=torch.Generator().manual_seed(0)).requires_grad_()
    for balance in balances:
        for seen in (label, torch.zeros_like(label), label.flip(-1), label):
            balance.observe(seen, valid, one_hot(seen, 8), label)
            weights = balance.weights()
            assert weights.isfinite().all() and (weights >= 0.08).all() and (weights <= 8).all()
            loss = trainer.cross(logits, seen, valid, balance) + trainer.weighted_loss(weights, logits, label)
            loss.backward()
            assert loss.isfinite() and logits.grad.isfinite().all()
    assert balances[1].weights().diff()[:6].gt(0).all()  # the rarer, the more
    balances[0].followed.badness[0] = 0.0  # a class that is learnt
    assert balances[0].weights()[0].item() == pytest.approx(0.08)


# ---- the terms


def test_each_network_has_its_own_weights_in_both_terms(ready_dataset):
    trainer = started(ready_dataset(), cross_weight=2.0)
    trainer.balances[0].followed.badness.copy_(torch.tensor([0.1, 0.5, 1.0]))
    labeled, unlabeled = trainer.split_batch(next(trainer.dataloader_train))
    unlabeled.valid[1, :, :4] = False
    terms = trainer.losses(labeled, unlabeled)
    valid = torch.cat([torch.ones_like(unlabeled.valid), unlabeled.valid])
    with torch.no_grad():
        images = torch.cat([labeled.image, unlabeled.weak])
        outputs = [network(images) for network in (trainer.network, trainer.auxiliary["second"])]
    weights = [balance.weights() for balance in trainer.balances]  # those of this step
    assert not torch.allclose(*weights)
    for i, name in enumerate(("first", "second")):
        label = finest(outputs[1 - i]).argmax(1, keepdim=True)
        cross = pseudo_cross_entropy(finest(outputs[i]), label, valid, valid, weights[i])
        assert terms[f"cross_{name}"].item() == pytest.approx(2.0 * cross.item(), rel=1e-4)
        own = [trainer.weighted_loss(weights[i], z[:2], t) for z, t in zip(outputs[i], labeled.target, strict=True)]
        share = trainer.loss.weight_factors
        expected = sum(w * loss.item() for w, loss in zip(share, own, strict=True))
        assert terms[f"supervised_{name}"].item() == pytest.approx(expected, rel=1e-4)


def test_weights_of_a_step_are_those_that_it_has_changed(ready_dataset):
    trainer = started(ready_dataset(), dist_momentum=0.0)
    labeled, unlabeled = trainer.split_batch(next(trainer.dataloader_train))
    used: list[torch.Tensor] = []
    cross = trainer.cross
    trainer.cross = lambda *given: used.append(given[3].weights().clone()) or cross(*given)
    trainer.losses(labeled, unlabeled)
    with torch.no_grad():
        label = finest(trainer.auxiliary["second"](unlabeled.weak)).argmax(1)
    counts = torch.bincount(label[unlabeled.valid[:, 0]], minlength=3)
    torch.testing.assert_close(used[1], distribution_weights(counts).clamp(min=0.03))


def test_equal_weights_are_plain_cross_entropy_and_so_many_times_the_dice(ready_dataset):
    trainer = started(ready_dataset())
    logits, label = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 1, 4, 4))
    found = trainer.weighted_loss(torch.full((3,), 3.0), logits, label.float())
    p, y = logits.softmax(1), one_hot(label, 3)
    dice = (2 * (p * y).sum((0, 2, 3)) + 1) / (p.sum((0, 2, 3)) + y.sum((0, 2, 3)) + 1)
    expected = F.cross_entropy(logits, label[:, 0]) + 3 * (1 - dice[1:]).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_supervision_can_be_nnunets_own(ready_dataset):
    trainer = started(ready_dataset(), weighted_sup=False)
    labeled, unlabeled = trainer.split_batch(next(trainer.dataloader_train))
    found = trainer.losses(labeled, unlabeled)["supervised_first"]
    with torch.no_grad():
        expected = trainer.loss(trainer.network(labeled.image), labeled.target)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


# ---- the rest


def test_weights_continue_from_the_checkpoint(ready_dataset):
    trainer, other = (started(ready_dataset()) for _ in range(2))
    for _ in range(2):
        trainer.losses(*trainer.split_batch(next(trainer.dataloader_train)))
    state = trainer.auxiliary_state()
    other.load_auxiliary_state(state)
    for mine, theirs in zip(trainer.balances, other.balances, strict=True):
        assert mine.state.keys() == theirs.state.keys() and len(mine.state) > 0
        assert all(torch.equal(value, theirs.state[name]) for name, value in mine.state.items())
        assert torch.equal(mine.weights(), theirs.weights())
    assert trainer.balances[0].followed.previous.max() > 0


def test_one_class_beside_background_is_refused(make_dataset):
    dataset = make_dataset(preprocess=False, labels={"background": 0, "ball": 1})
    with pytest.raises(NotImplementedError, match="does not support background and one class alone.*nnUNetTrainerCPS"):
        make_registered(dataset, NAME, "2d")
