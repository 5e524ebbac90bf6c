"""Who labels whom, on what, and with which weights of the classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from nnunet_ssl.losses.pseudo_label import pseudo_cross_entropy
from nnunet_ssl.training.deep_supervision import finest
from tests.trainers.inside import batch_of, in_second_step
from tests.trainers.registered import make_registered
from tests.trainers.stepping import steps

pytestmark = pytest.mark.usefixtures("no_figures")
TRAINING = {"num_epochs": 1, "num_iterations_per_epoch": 2, "seed": 1}
FIRST = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])  # (1, K = 2, two voxels)
SECOND = torch.tensor([[[0.0, 0.0], [0.5, 1.0]]])


def started(dataset: Path, **hyperparameters: Any) -> Any:
    """At the end of its ramp."""
    options = {"rampup_fraction": 1e-6, "guard": False, "cutmix_probability": 0.0} | hyperparameters
    trainer = make_registered(dataset, "nnUNetTrainerCPS", "2d", split="n2", training=TRAINING, hyperparameters=options)
    return in_second_step(trainer)


def test_hard_labels_both_ways():
    """Two voxels, two classes: 0.72009485 and 0.64366934; the gradient of the first is that of softmax - one-hot."""
    first = FIRST.clone().requires_grad_()
    everywhere = torch.ones(1, 1, 2, dtype=torch.bool)
    loss = pseudo_cross_entropy(first, SECOND.argmax(1, keepdim=True), everywhere, everywhere)
    other = pseudo_cross_entropy(SECOND, FIRST.argmax(1, keepdim=True), everywhere, everywhere)
    assert loss.item() == pytest.approx(0.72009485) and other.item() == pytest.approx(0.64366934)
    assert loss.item() + other.item() == pytest.approx(1.36376418)
    loss.backward()
    torch.testing.assert_close(
        first.grad, torch.tensor([[[0.36552929, 0.0596015], [-0.36552929, -0.0596015]]]), rtol=1e-4, atol=1e-6
    )
    own = pseudo_cross_entropy(FIRST, FIRST.argmax(1, keepdim=True), everywhere, everywhere)
    assert own.item() == pytest.approx(0.22009485)


def test_certain_networks_that_agree_teach_nothing():
    label, everywhere = torch.tensor([[[1, 0, 2]]]), torch.ones(1, 1, 3, dtype=torch.bool)
    certain = (200 * F.one_hot(label[:, 0], 3).movedim(-1, 1).float()).requires_grad_()
    loss = pseudo_cross_entropy(certain, certain.argmax(1, keepdim=True), everywhere, everywhere)
    assert loss.item() == 0.0 and not torch.autograd.grad(loss, certain)[0].any()


def test_the_networks_under_each_others_names_are_the_same_loss(ready_dataset):
    trainer = started(ready_dataset(), cross_weight=2.0)
    batch, networks = batch_of(trainer), (trainer.network, trainer.auxiliary["second"])
    before = trainer.losses(*batch)
    trainer.network, trainer.auxiliary["second"] = reversed(networks)
    after = trainer.losses(*batch)
    for kind in ("supervised", "cross"):
        first, second = (before[f"{kind}_{name}"].item() for name in ("first", "second"))
        assert [after[f"{kind}_{name}"].item() for name in ("second", "first")] == pytest.approx([first, second])
        assert first != pytest.approx(second, rel=1e-3)
    assert sum(after.values()).item() == pytest.approx(sum(before.values()).item())


@pytest.mark.parametrize("rule", ["cld", "crest", "simis"])
def test_weights_of_the_classes_leave_the_supervised_terms_alone(ready_dataset, rule):
    found = []
    for balance in ("none", rule):
        trainer = started(ready_dataset(), balance=balance)
        for own in trainer.balances if balance == "cld" else ():
            own._started()["confidence"].copy_(torch.tensor([0.99, 0.6, 0.3]))
        found.append({k: v.item() for k, v in trainer.losses(*batch_of(trainer)).items()})
    plain, weighted = found
    for name in ("first", "second"):
        assert weighted[f"supervised_{name}"] == plain[f"supervised_{name}"]
        assert weighted[f"cross_{name}"] != pytest.approx(plain[f"cross_{name}"], rel=1e-5)


def test_no_weight_left_is_zero():
    everywhere = torch.ones(1, 1, 2, dtype=torch.bool)
    weights = torch.tensor([0.0, 2.0])
    assert pseudo_cross_entropy(FIRST, torch.zeros(1, 1, 2).long(), everywhere, everywhere, weights) == 0
    ones = torch.ones(1, 1, 2).long()
    assert pseudo_cross_entropy(FIRST, ones, everywhere, everywhere, weights).item() == pytest.approx(0.72009485)


def test_each_network_learns_what_the_other_one_says(ready_dataset):
    trainer = started(ready_dataset(), cross_weight=2.0)
    labeled, unlabeled = batch_of(trainer)
    terms = trainer.losses(labeled, unlabeled)
    with torch.no_grad():
        first, second = (finest(n(unlabeled.weak)) for n in (trainer.network, trainer.auxiliary["second"]))
    valid = unlabeled.valid
    for name, student, teacher in (("first", first, second), ("second", second, first)):
        expected = 2.0 * pseudo_cross_entropy(student, teacher.argmax(1, keepdim=True), valid, valid)
        assert terms[f"cross_{name}"].item() == pytest.approx(expected.item(), rel=1e-5)
        assert terms.weights[f"cross_{name}"] == 2.0
    assert not torch.equal(first, second)  # weights of their own


def test_mixed_patches_learn_the_labels_of_the_unmixed_ones(ready_dataset):
    trainer = started(ready_dataset(), cutmix_probability=1.0, cutmix_smallest=1.0, cutmix_largest=1.0)
    labeled, unlabeled = batch_of(trainer)
    unlabeled.valid[:] = True
    terms = trainer.losses(labeled, unlabeled)  # the box is the patch: image and label are the partner's
    with torch.no_grad():
        first, second = (finest(n(unlabeled.weak)) for n in (trainer.network, trainer.auxiliary["second"]))
    expected = 0.5 * pseudo_cross_entropy(first, second.argmax(1, keepdim=True), unlabeled.valid, unlabeled.valid)
    assert terms["cross_first"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_boxes_move_labels_with_the_images(ready_dataset, monkeypatch):
    trainer = started(ready_dataset(), cutmix_probability=1.0)
    labeled, unlabeled = batch_of(trainer)
    box = torch.zeros_like(unlabeled.valid)
    box[..., :4] = True
    unlabeled.valid[0, :, :3] = False
    monkeypatch.setattr(type(trainer.cutmix), "draw", lambda *_: box)
    seen: list[Any] = []
    monkeypatch.setattr(trainer, "cross", lambda *args: seen.append(args) or torch.zeros(()))
    images = []
    forward = trainer.forward
    monkeypatch.setattr(trainer, "forward", lambda n, x: images.append(x) or forward(n, x))
    trainer.losses(labeled, unlabeled)
    mixed = torch.where(box, unlabeled.weak.roll(-1, 0), unlabeled.weak)
    assert torch.equal(images[0][2:], mixed) and torch.equal(images[1][2:], mixed)
    with torch.no_grad():
        label = finest(trainer.auxiliary["second"](unlabeled.weak)).argmax(1, keepdim=True)
    assert torch.equal(seen[0][1], torch.where(box, label.roll(-1, 0), label))
    assert torch.equal(seen[0][2], torch.where(box, unlabeled.valid.roll(-1, 0), unlabeled.valid))


def test_on_all_patches_the_labelled_ones_join(ready_dataset, monkeypatch):
    for where, number in (("unlabeled", 2), ("all", 4)):
        trainer = started(ready_dataset(), cross_on=where)
        seen: list[Any] = []
        monkeypatch.setattr(trainer, "cross", lambda *args, seen=seen: seen.append(args) or torch.zeros(()))
        trainer.losses(*batch_of(trainer))
        for logits, label, valid, _ in seen:
            assert len(logits) == len(label) == len(valid) == number


@pytest.mark.parametrize("rule", ["crest", "simis"])
def test_weights_follow_what_each_network_predicts(ready_dataset, rule):
    trainer = started(ready_dataset(), balance=rule)
    before = [balance._started()["weights"].clone() for balance in trainer.balances]
    assert torch.equal(*before)  # of the labelled cases
    start = before[0]
    assert start.argmin() == 0 and (start[1:] > start[0]).all()  # background is the most frequent
    decided = torch.ones(2, 1, 16, 16, dtype=torch.long)
    everywhere = torch.ones_like(decided, dtype=torch.bool)
    probabilities = torch.full((2, 3, 16, 16), 1 / 3)
    trainer.balances[0].observe(decided, everywhere, probabilities, decided)
    after = trainer.balances[0].weights()
    only_first_class = {"crest": [0.0, 0.0, 0.0], "simis": [3.0, 0.0, 3.0]}[rule]
    moved = (after - 0.99 * start) / 0.01
    if rule == "simis":
        torch.testing.assert_close(moved, torch.tensor(only_first_class), atol=1e-3, rtol=0)
    assert moved[1] < moved[2] + 1e-3 and torch.equal(trainer.balances[1].weights(), start)


def test_sure_classes_are_thinned_out(ready_dataset):
    """CLD: of a class of confidence .9 where the least sure one has .3, sqrt(.1 / .7) = .378 of the voxels stay."""
    trainer = started(ready_dataset(), balance="cld")
    balance = trainer.balances[0]
    balance._started()["confidence"].copy_(torch.tensor([0.9, 0.6, 0.3]))
    decided = torch.arange(3).repeat_interleave(100_000).view(1, 1, -1)
    torch.manual_seed(0)
    kept = balance.keep(decided, torch.ones_like(decided, dtype=torch.bool))[0, 0].view(3, -1).float().mean(1)
    torch.testing.assert_close(kept, torch.tensor([0.37796447, 0.75592895, 1.0]), atol=5e-3, rtol=0)
    assert not balance.keep(decided, torch.zeros_like(decided, dtype=torch.bool)).any()


def test_confidences_are_collected_over_eight_steps(ready_dataset):
    balance = started(ready_dataset(), balance="cld").balances[0]
    label = torch.tensor([0, 0, 1, -1]).view(1, 1, 2, 2)
    probabilities = torch.tensor([[0.9, 0.7, 0.2, 0.5], [0.1, 0.3, 0.8, 0.5], [0.0, 0.0, 0.0, 0.0]]).view(1, 3, 2, 2)
    for step in range(8):
        assert (balance._started()["confidence"] == -1).all(), step
        balance.observe(label, label >= 0, probabilities, label)
    found = balance._started()["confidence"]
    assert found[:2].tolist() == pytest.approx([0.8, 0.8]) and found[2] == -1  # a class not seen stays unknown
    everywhere = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    assert balance.keep(torch.full((1, 1, 2, 2), 2), everywhere).all()


@pytest.mark.parametrize("rule", ["none", "crest", "simis", "cld"])
def test_eight_classes_of_very_different_size(ready_dataset, rule):
    """Frequencies 1 to 1000: nothing is NaN, no weight infinite, also where a patch is background alone."""
    trainer = started(ready_dataset(), balance=rule)
    trainer.targets.channels = 8
    counts = torch.logspace(3, 0, 8)
    balance = trainer.balances[0]
    balance._labelled = lambda classes: counts.tolist()
    logits = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    valid = torch.ones(2, 1, 8, 8, dtype=torch.bool)
    for label in (torch.zeros(2, 1, 8, 8).long(), torch.randint(0, 8, (2, 1, 8, 8))):
        balance.observe(label, valid, logits.detach().softmax(1), label)
        loss = trainer.cross(logits, label, valid, balance)
        loss.backward()
        assert loss.isfinite() and logits.grad.isfinite().all()
    weights = balance.weights()
    assert weights is None or weights.isfinite().all()


def test_weights_of_the_classes_are_logged(ready_dataset):
    trainer = started(ready_dataset(), balance="simis")
    trainer.step = 0
    trainer.losses(*batch_of(trainer))
    means = trainer.monitor.epoch_means()
    for network in ("first", "second"):
        assert all(f"class_weight_{network}_{k}" in means for k in range(3))


def test_weights_and_boxes_continue_from_the_checkpoint(ready_dataset, tmp_path):
    trainer = started(ready_dataset(), balance="crest", cutmix_probability=1.0)
    list(steps(trainer, 2))
    trainer.save_checkpoint(str(tmp_path / "c.pth"))
    other = make_registered(
        ready_dataset(), "nnUNetTrainerCPS", "2d", split="n2", training=TRAINING,
        hyperparameters={"balance": "crest", "rampup_fraction": 1e-6, "guard": False},
    )  # fmt: skip
    other.load_checkpoint(str(tmp_path / "c.pth"))
    for mine, theirs in zip(trainer.balances, other.balances, strict=True):
        assert torch.equal(mine.weights(), theirs.weights())
    assert torch.equal(trainer.cutmix.generator.get_state(), other.cutmix.generator.get_state())
    for name, value in trainer.auxiliary["second"].state_dict().items():
        assert torch.equal(value, other.auxiliary["second"].state_dict()[name])


@pytest.mark.parametrize("chosen", ["first", "second"])
def test_the_chosen_network_is_exported(ready_dataset, tmp_path, chosen):
    trainer = started(ready_dataset(), predict_with=chosen)
    wanted = trainer.network if chosen == "first" else trainer.auxiliary["second"]
    expected = {name: value.clone() for name, value in wanted.state_dict().items()}
    trainer.save_checkpoint(str(tmp_path / "c.pth"))
    found = torch.load(tmp_path / "c.pth", weights_only=False)["network_weights"]
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_balanced_regions_are_refused(ready_dataset):
    regions = {"labels": {"background": 0, "whole": (1, 2), "box": 2}, "regions_class_order": (1, 2)}
    with pytest.raises(NotImplementedError, match='balance = "crest" weighs classes that exclude each other'):
        make_registered(ready_dataset(**regions), "nnUNetTrainerCPS", "2d", hyperparameters={"balance": "crest"})


def test_the_pull_of_terms_that_train_the_second_network_is_seen(ready_dataset):
    """Of both networks' gradient: measured on the first alone, these terms would be called inert."""
    trainer = started(ready_dataset(), pull_looks=2)
    trainer.train_step(next(trainer.dataloader_train))
    pulls = {name: float(value) for name, value in trainer.monitor.epoch_means().items() if name.startswith("pull_")}
    assert set(pulls) == {f"pull_{kind}_{of}" for kind in ("supervised", "cross") for of in ("first", "second")}
    assert all(0.01 < value < 1.5 for value in pulls.values())
