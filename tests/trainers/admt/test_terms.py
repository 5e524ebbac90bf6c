"""The label of two teachers, who follows whom, and what the student sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nnunet_ssl.training.deep_supervision import finest
from tests.running import same_weights, weights
from tests.trainers.registered import make_registered

pytestmark = pytest.mark.usefixtures("no_figures")
TRAINING = {"num_epochs": 1, "num_iterations_per_epoch": 10, "seed": 1}


def started(dataset, **options: Any) -> Any:
    options = {
        "threshold": 0.4,
        "rampup_fraction": 0.0,
        "period_steps": 3,
        "copy_fraction": 0.2,
        "guard": False,
    } | options
    trainer = make_registered(
        dataset, "nnUNetTrainerADMT", "2d", split="n2", training=TRAINING, hyperparameters=options
    )
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    return trainer


def batch_of(trainer: Any) -> tuple[Any, Any]:
    labeled, unlabeled = trainer.split_batch(next(trainer.dataloader_train))
    unlabeled.valid[:] = True
    return labeled, unlabeled


def disturb(trainer: Any) -> None:
    """Three different networks."""
    with torch.no_grad():
        for name, factor in (("teacher", 1.3), ("second_teacher", 0.6)):
            for parameter in trainer.auxiliary[name].parameters():
                parameter.mul_(factor)


def test_the_teacher_whose_turn_it_is_follows_and_the_other_rests(ready_dataset):
    trainer = started(ready_dataset(), period_steps=1)
    names = ("teacher", "second_teacher")
    for step in range(8):
        second = trainer.alternation.second
        assert second == bool(step % 2)
        before = {name: weights(trainer.auxiliary[name]) for name in names}
        trainer.train_step(next(trainer.dataloader_train))
        active, resting = names[second], names[not second]
        assert same_weights(before[resting], weights(trainer.auxiliary[resting]))
        # copies for the first 2 of 10 steps, then 0, 0, 1/2, 1/2, 2/3, 2/3 ...
        decay = 0.0 if step < 2 else 1 - 1 / ((step - 2) // 2 + 1)
        found = zip(weights(trainer.auxiliary[active]), before[active], weights(trainer.network), strict=True)
        for teacher, was, student in found:
            torch.testing.assert_close(teacher, decay * was + (1 - decay) * student)


def test_decay_as_published(ready_dataset):
    trainer = started(ready_dataset(), copy_fraction=0.0)
    decays = [trainer.decay(False, 2 * j) for j in (0, 1, 9, 99, 500)]
    assert decays == pytest.approx([0.0, 0.5, 0.9, 0.99, 0.99]) and trainer.decay(True, 10) == 1.0


@pytest.mark.parametrize("second", [False, True])
def test_the_student_sees_the_strong_view_or_boxes_of_weak_ones(ready_dataset, monkeypatch, second):
    trainer = started(ready_dataset())
    trainer.streams.strong_view = lambda images: images + 7
    trainer.alternation.second = second
    trainer.alternation.beta = lambda: 0.5
    labeled, unlabeled = batch_of(trainer)
    disturb(trainer)
    seen, asked, joint, loss = [], [], trainer.forward_joint, trainer.targets.pseudo_supervision
    monkeypatch.setattr(trainer, "forward_joint", lambda a, b: seen.append(b) or joint(a, b))
    monkeypatch.setattr(trainer.targets, "pseudo_supervision", lambda *a: asked.append(a) or loss(*a))
    terms = trainer.losses(labeled, unlabeled)
    assert set(terms) == {"supervised", "pseudo_label"}
    (images,), ((_, _, label, keep, _),) = seen, asked
    logits = trainer.teacher(unlabeled.weak), trainer.second(unlabeled.weak)
    expected, confidence = trainer.label(*logits, unlabeled)
    if not second:
        assert torch.equal(images, unlabeled.weak + 7) and torch.equal(label, expected)
        assert torch.equal(keep, confidence >= 0.4)
        return
    foreign = (images != unlabeled.weak).any(1, keepdim=True)
    assert foreign.any() and not foreign.all()
    for found, of in ((images, unlabeled.weak), (label, expected), (keep, confidence >= 0.4)):
        where = foreign.expand_as(found)
        assert torch.equal(found[where], of.roll(-1, 0)[where]) and torch.equal(found[~where], of[~where])


def test_the_student_settles_what_the_teachers_dispute(ready_dataset):
    """Three voxels: agreement; a conflict that the student wins; one that it loses."""
    trainer = started(ready_dataset())
    _, unlabeled = batch_of(trainer)

    def logits(*rows):
        return torch.tensor(rows).log().T.reshape(1, 3, 1, 3)

    first = logits((0.9, 0.05, 0.05), (0.6, 0.3, 0.1), (0.9, 0.05, 0.05))
    second = logits((0.8, 0.1, 0.1), (0.3, 0.6, 0.1), (0.1, 0.8, 0.1))
    own = logits((0.01, 0.98, 0.01), (0.02, 0.03, 0.95), (0.35, 0.4, 0.25))
    unlabeled._weak, unlabeled.valid = torch.zeros(1, 1, 1, 3), torch.ones(1, 1, 1, 3, dtype=torch.bool)
    trainer.forward = lambda network, x: [own]
    label, confidence = trainer.label(first, second, unlabeled)
    assert label.flatten().tolist() == [0, 2, 0] and not confidence.requires_grad
    assert confidence.flatten()[1].item() == pytest.approx(0.95)


def test_the_weight_rises_over_the_first_part_of_training(ready_dataset):
    """2 r over a fraction of .4: at the start, a quarter and half of the ramp, at its end and after it."""
    trainer = started(ready_dataset(), unsupervised_weight=2.0, rampup_fraction=0.4)
    found = []
    for step in (0, 1, 2, 4, 9):
        trainer.step = step
        found.append(trainer.losses(*batch_of(trainer)).weights["pseudo_label"])
    assert found == pytest.approx([0.013476, 0.120109, 0.573010, 2.0, 2.0], abs=1e-6)


def test_equal_networks_are_plain_pseudo_labels_of_the_weak_view(ready_dataset):
    trainer = started(ready_dataset(), threshold=0.0)
    trainer.streams.strong_view = lambda images: images
    labeled, unlabeled = batch_of(trainer)
    own = finest(trainer.network(unlabeled.weak)).detach()
    for name in ("teacher", "second_teacher"):
        assert same_weights(weights(trainer.auxiliary[name]), weights(trainer.network))
    terms = trainer.losses(labeled, unlabeled)
    label = own.argmax(1, keepdim=True)
    valid = unlabeled.valid
    expected = trainer.targets.pseudo_supervision("ce+dice", own, label, valid, valid)
    assert terms["pseudo_label"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_nothing_kept_is_zero_connected_and_finite(ready_dataset, monkeypatch):
    trainer = started(ready_dataset())
    monkeypatch.setattr(trainer, "label", lambda a, b, _: (a.argmax(1, keepdim=True), torch.zeros_like(a[:, :1])))
    terms = trainer.losses(*batch_of(trainer))
    assert terms["pseudo_label"].item() == 0.0 and terms["pseudo_label"].requires_grad


def test_one_patch_has_no_partner(ready_dataset):
    trainer = started(ready_dataset(), unlabeled_batch_size=1)
    trainer.alternation.second = True
    assert trainer.draw_box(torch.zeros(1, 1, 16, 16)) is None
    assert torch.isfinite(sum(trainer.losses(*batch_of(trainer)).values()))


def test_turns_and_boxes_continue_from_the_checkpoint(ready_dataset):
    trainer, other = started(ready_dataset()), started(ready_dataset())
    patches = torch.zeros(2, 1, 16, 16)
    trainer.draw_box(patches)
    trainer.alternation.advance()
    state = trainer.auxiliary_state()
    expected = trainer.draw_box(patches)
    other.load_auxiliary_state(state)
    assert torch.equal(other.draw_box(patches), expected)
    assert other.alternation.state()["left"] == state["alternation"]["left"]


def test_longest_period(ready_dataset):
    assert started(ready_dataset()).alternation.longest == 3
    assert started(ready_dataset(), period_steps=None).alternation.longest == 5  # half of 10 steps
    assert started(ready_dataset(), period_steps=None, period_fraction=0.0).alternation.longest == 1
