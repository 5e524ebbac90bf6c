"""The terms of UniMatch and FixMatch with networks whose outputs are chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_ssl.losses.pseudo_label import pseudo_cross_entropy, pseudo_dice
from nnunet_ssl.training.deep_supervision import finest
from tests.trainers.inside import batch_of
from tests.trainers.registered import make_registered
from tests.trainers.stepping import steps

pytestmark = pytest.mark.usefixtures("no_figures")
UNIMATCH, FIXMATCH = "nnUNetTrainerUniMatch", "nnUNetTrainerFixMatch"
TRAINING = {"num_epochs": 1, "num_iterations_per_epoch": 1, "seed": 1}


def started(dataset, name: str = UNIMATCH, configuration: str = "2d", **hyperparameters: Any) -> Any:
    """At the end of its ramp, with strong views that are the weak one."""
    options = {"threshold": 0.4, "rampup_fraction": 0.0, "guard": False} | hyperparameters
    trainer = make_registered(dataset, name, configuration, split="n2", training=TRAINING, hyperparameters=options)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    trainer.streams.strong_view = lambda images: images
    return trainer


def outputs_of(trainer: Any) -> list[torch.Tensor]:
    """What the network answered in the step that follows, the unlabelled part alone, split by input; fills itself."""
    seen: list[torch.Tensor] = []
    forward = trainer.forward_joint

    def listen(labeled, unlabeled):
        own, rest = forward(labeled, unlabeled)
        seen.extend(finest(rest).detach().split(2))
        return own, rest

    trainer.forward_joint = listen
    return seen


def l(z, label, keep, valid) -> float:  # noqa: E743 - the name it has in the equations
    return (pseudo_cross_entropy(z, label, keep, valid) + pseudo_dice(z, label, keep)).item()


# ---- the weights


def test_a_quarter_for_each_view_and_a_half_for_the_features(ready_dataset, monkeypatch):
    """sup = .6, s1 = .4, s2 = .2, fp = .8 and w = 1 give 1.15."""
    trainer = started(ready_dataset())
    values = iter([0.4, 0.2, 0.8])
    monkeypatch.setattr(trainer.targets, "pseudo_supervision", lambda *_: torch.tensor(next(values)))
    monkeypatch.setattr(trainer, "supervised_loss", lambda *_: torch.tensor(0.6))
    terms = trainer.losses(*batch_of(trainer))
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(
        {"supervised": 0.6, "strong": 0.15, "features": 0.4}
    )
    assert sum(terms.values()).item() == pytest.approx(1.15)
    assert terms.weights == {"strong": 0.5, "features": 0.5}


def test_as_published_the_same_sum_is_halved(ready_dataset, monkeypatch):
    """.575 at a rate of .01 and a decay of 1e-4 is 1.15 at half the rate and twice the decay."""
    trainer = started(ready_dataset(), "nnUNetTrainerUniMatch_paper")
    values = iter([0.4, 0.2, 0.8])
    monkeypatch.setattr(trainer.targets, "pseudo_supervision", lambda *_: torch.tensor(next(values)))
    monkeypatch.setattr(trainer, "supervised_loss", lambda *_: torch.tensor(0.6))
    total = sum(trainer.losses(*batch_of(trainer)).values()).item()
    group = trainer.optimizer.param_groups[0]
    assert group["lr"] * total == pytest.approx(0.01 * 0.575)
    assert group["lr"] * group["weight_decay"] == pytest.approx(0.01 * 1e-4)


def test_one_view_alone_has_the_whole_weight(ready_dataset, monkeypatch):
    trainer = started(ready_dataset(), FIXMATCH, unsupervised_weight=3.0)
    monkeypatch.setattr(trainer.targets, "pseudo_supervision", lambda *_: torch.tensor(0.4))
    terms = trainer.losses(*batch_of(trainer))
    assert terms["strong"].item() == pytest.approx(1.2) and set(terms) == {"supervised", "strong"}


def test_the_weight_rises_after_the_warm_up(ready_dataset):
    training = TRAINING | {"num_iterations_per_epoch": 4}
    options = {"warmup_fraction": 0.25, "rampup_fraction": 0.5, "unsupervised_weight": 2.0, "guard": False}
    trainer = make_registered(ready_dataset(), FIXMATCH, "2d", split="n2", training=training, hyperparameters=options)
    found = [step.get("weight_strong") for step in steps(trainer, 4)]
    assert found[0] is None  # nothing is labelled in the warm-up
    assert found[1:] == pytest.approx([2 * 0.006738, 2 * 0.286505, 2.0], rel=1e-4)


# ---- the pseudo-labels


def test_identical_views_without_boxes_learn_the_label_of_the_weak_view(ready_dataset):
    """Threshold 0: plain pseudo-labels; above 1: no voxel, the total is the supervised loss."""
    trainer = started(ready_dataset(), cutmix_probability=0.0, threshold=0.0, teacher="none", feature_dropout=0.0)
    batch, seen = batch_of(trainer), outputs_of(trainer)
    terms = trainer.losses(*batch)
    weak = seen[2]  # features of which none is dropped
    assert len(seen) == 3 and all(torch.equal(z, weak) for z in seen)
    label, everywhere = weak.argmax(1, keepdim=True), batch[1].valid
    expected = l(weak, label, everywhere, everywhere)
    assert terms["strong"].item() == pytest.approx(expected / 2) == terms["features"].item()
    trainer.targets.pseudo_label = lambda z: (z.argmax(1, keepdim=True), torch.zeros_like(z[:, :1]))
    trainer.hyperparameters.__dict__["threshold"] = 0.1
    terms = trainer.losses(*batch)
    assert terms["strong"].item() == terms["features"].item() == 0.0 and terms["strong"].requires_grad


def test_rejected_and_padded_voxels_teach_nothing(ready_dataset, monkeypatch):
    trainer = started(ready_dataset(), cutmix_probability=0.0)
    labeled, unlabeled = batch_of(trainer)
    unlabeled.valid[:] = True
    unlabeled.valid[:, :, :3] = False
    own, rest = trainer.forward_joint(labeled.image, torch.cat([unlabeled.weak] * 3))
    students = [torch.randn_like(z).requires_grad_() for z in finest(rest).split(2)]
    monkeypatch.setattr(trainer, "forward_joint", lambda *_: (own, [torch.cat(students)]))
    confidence = torch.full_like(students[0][:, :1], 0.99)
    confidence[:, :, 3:6] = 0.39
    monkeypatch.setattr(trainer.targets, "pseudo_label", lambda z: (torch.ones_like(z[:, :1]).long(), confidence))
    terms = trainer.losses(labeled, unlabeled)
    for gradient in torch.autograd.grad(terms["strong"] + terms["features"], students):
        assert not gradient[:, :, :6].any() and gradient[:, :, 6:].any(1).all()


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_the_box_mixes_image_label_confidence_and_padding(ready_dataset, monkeypatch, share):
    """A box everywhere: everything is the partner's."""
    trainer = started(ready_dataset(), FIXMATCH, cutmix_smallest=share, cutmix_largest=share)
    labeled, unlabeled = batch_of(trainer)
    unlabeled.valid[:] = True
    unlabeled.valid[1, :, :5] = False
    boxes, draw = [], trainer.cutmix.draw
    monkeypatch.setattr(type(trainer.cutmix), "draw", lambda self, x: boxes.append(draw(x)) or boxes[-1])
    asked, seen = [], []
    loss = trainer.targets.pseudo_supervision
    monkeypatch.setattr(trainer.targets, "pseudo_supervision", lambda *a: asked.append(a) or loss(*a))
    joint = trainer.forward_joint
    monkeypatch.setattr(trainer, "forward_joint", lambda a, b: seen.append(b) or joint(a, b))
    trainer.losses(labeled, unlabeled)
    (box,), ((_, _, label, keep, valid),), (images,) = boxes, asked, seen
    teacher = trainer.teacher(unlabeled.weak)
    confidence, decided = teacher.softmax(1).max(1, keepdim=True)
    for i, partner in ((0, 1), (1, 0)):
        inside, outside = box[i], ~box[i]
        assert inside.any() and (share < 1 or inside.all())
        for found, of in ((label, decided), (valid, unlabeled.valid), (images, unlabeled.weak),
                          (keep, (confidence >= 0.4) & unlabeled.valid)):  # fmt: skip
            assert torch.equal(found[i][:, inside[0]], of[partner][:, inside[0]])
            assert torch.equal(found[i][:, outside[0]], of[i][:, outside[0]])


def test_two_views_have_boxes_and_photometric_changes_of_their_own(ready_dataset, monkeypatch):
    trainer = started(ready_dataset())
    trainer.streams.strong_view = lambda images: images + torch.rand(1)
    seen, joint = [], trainer.forward_joint
    monkeypatch.setattr(trainer, "forward_joint", lambda a, b: seen.append(b) or joint(a, b))
    labeled, unlabeled = batch_of(trainer)
    trainer.losses(labeled, unlabeled)
    first, second, third = seen[0].split(2)
    assert torch.equal(third, unlabeled.weak)
    assert not torch.equal(first, second) and not torch.equal(first - second, (first - second).mean().expand_as(first))


# ---- who labels


def test_the_teacher_labels_or_the_network_itself(ready_dataset):
    for who in ("ema", "none"):
        trainer = started(ready_dataset(), teacher=who)
        _, unlabeled = batch_of(trainer)
        labels = trainer.label(unlabeled.weak)
        own = finest(trainer.network(unlabeled.weak))
        assert torch.equal(labels, own) and not labels.requires_grad  # at the start, both are the same
        with torch.no_grad():
            for parameter in trainer.network.parameters():
                parameter.mul_(1.5)
        changed = finest(trainer.network(unlabeled.weak))
        assert torch.equal(trainer.label(unlabeled.weak), own if who == "ema" else changed)
        assert ("teacher" in trainer.auxiliary) == (who == "ema")


def test_fixmatch_is_unimatch_with_its_switches_off(ready_dataset):
    off = {"strong_views": 1, "feature_dropout": None}
    found = []
    for name, options in ((FIXMATCH, {}), (UNIMATCH, off)):
        trainer = make_registered(
            ready_dataset(), name, "2d", split="n2", training=TRAINING | {"num_iterations_per_epoch": 3},
            hyperparameters=options,
        )  # fmt: skip
        found.append(list(steps(trainer, 3)))
    assert found[0] == found[1]


def test_a_voxel_of_each_region_is_kept_on_its_own(ready_dataset):
    recipe = {"labels": {"background": 0, "whole": (1, 2), "box": 2}, "regions_class_order": (1, 2)}
    trainer = started(ready_dataset(**recipe), FIXMATCH, cutmix_probability=0.0, threshold=0.9)
    z = torch.tensor([[5.0, -5.0, 0.1], [0.1, 5.0, 5.0]]).view(1, 2, 1, 3)
    label, confidence = trainer.targets.pseudo_label(z)
    assert label[0, :, 0].tolist() == [[True, False, True], [True, True, True]]
    assert (confidence >= 0.9)[0, :, 0].tolist() == [[True, True, False], [False, True, True]]


# ---- what it says and keeps


def test_one_patch_per_step_has_no_partner_and_the_log_says_so(ready_dataset):
    trainer = started(ready_dataset(), unlabeled_batch_size=1)
    assert "WARNING: Nothing is mixed" in Path(trainer.log_file).read_text()
    terms = trainer.losses(*batch_of(trainer))
    assert all(torch.isfinite(term) for term in terms.values())


def test_boxes_continue_from_the_checkpoint(ready_dataset):
    trainer = started(ready_dataset())
    patches = torch.zeros(2, 1, 16, 16)
    state = trainer.auxiliary_state()
    expected = [trainer.cutmix.draw(patches) for _ in range(3)]
    other = started(ready_dataset())
    other.cutmix.draw(patches)  # away from the state with which both begin
    other.load_auxiliary_state(state)
    assert all(torch.equal(other.cutmix.draw(patches), box) for box in expected)
