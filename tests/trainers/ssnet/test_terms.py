"""Smoothness under the worst noise, and which voxels are separated and remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_ssl.losses.virtual_adversarial import dice_distance
from nnunet_ssl.trainers.ssnet import separation as of_separation
from nnunet_ssl.trainers.ssnet import trainer as module
from nnunet_ssl.training.deep_supervision import finest
from tests.trainers.inside import batch_of, in_second_step
from tests.trainers.registered import make_registered
from tests.trainers.stepping import steps

pytestmark = pytest.mark.usefixtures("no_figures")
TRAINING = {"num_epochs": 2, "num_iterations_per_epoch": 2, "seed": 1}


def made(dataset: Path, **hyperparameters: Any) -> Any:
    options = {"rampup_fraction": 1e-6, "guard": False} | hyperparameters
    return make_registered(dataset, "nnUNetTrainerSSNet", "2d", split="n2", training=TRAINING, hyperparameters=options)


def started(dataset: Path, **hyperparameters: Any) -> Any:
    """At the end of its ramp."""
    trainer = made(dataset, **hyperparameters)
    return in_second_step(trainer)


@pytest.mark.parametrize("form", ["squared", "plain"])
def test_smoothness_of_both_streams(ready_dataset, monkeypatch, form):
    trainer = started(ready_dataset(), smoothness_weight=2.0, separation_weight=0.0, distance=form, noise_rms=0.2)
    assert not trainer.auxiliary
    labeled, unlabeled = batch_of(trainer)
    unlabeled.valid[0, :, :5] = False
    found, search = [], module.adversarial_noise
    monkeypatch.setattr(module, "adversarial_noise", lambda *a: found.append(search(*a)) or found[0])
    before = [p.detach().clone() for p in trainer.network.parameters()]
    terms = trainer.losses(labeled, unlabeled)
    assert all(torch.equal(p, b) and p.grad is None for p, b in zip(trainer.network.parameters(), before, strict=True))
    images, valid = torch.cat([labeled.image, unlabeled.weak]), torch.cat([labeled.valid, unlabeled.valid])
    (noise,) = found
    torch.testing.assert_close(noise.square().mean((1, 2, 3)).sqrt(), torch.full((4,), 0.2))
    with torch.no_grad():
        clean, noisy, opposite = (finest(trainer.network(images + n)).softmax(1) for n in (0 * noise, noise, -noise))
        random = finest(trainer.network(images + 0.2 * torch.randn_like(noise))).softmax(1)
        expected, others = (
            [dice_distance(p, clean, valid, form == "squared") for p in ps] for ps in ([noisy], [opposite, random])
        )
    assert terms["smoothness"].item() == pytest.approx(2.0 * expected[0].item(), rel=1e-4)
    if form == "squared":
        assert expected[0] > others[1]  # worse than any noise
    else:
        assert expected[0] > others[0]  # the plain form has a slope at no noise


def test_a_background_of_zero_stays_zero(ready_dataset):
    labels = {"background": 0, "ball": 1, "box": 2, "ignore": 3}
    trainer = started(ready_dataset(labels=labels, channels=2, mask_normalization=True))
    images = torch.randn(1, 2, 4, 4)
    images[..., :2] = 0
    noisy = trainer.disturbed(images, torch.ones_like(images))
    assert not noisy[..., :2].any() and torch.equal(noisy[..., 2:], images[..., 2:] + 1)


def test_which_voxels_are_separated_and_remembered(ready_dataset, monkeypatch):
    trainer = started(ready_dataset(), smoothness_weight=0.0, separation_weight=0.3, separation_voxels=10_000)
    labeled, unlabeled = batch_of(trainer)
    labeled.valid[0, :, :6] = False
    unlabeled.valid[1, :, 9:] = False
    streams: list[Any] = []
    sample = of_separation.sample_features
    monkeypatch.setattr(of_separation, "sample_features", lambda x, m, most: streams.append(m) or sample(x, m, most))
    remembered: list[Any] = []
    memory = trainer.auxiliary["memory"]
    monkeypatch.setattr(memory, "replace", lambda *given: remembered.append(given))
    memory.vectors.copy_(torch.randn_like(memory.vectors))
    memory.number[:] = 4
    terms = trainer.losses(labeled, unlabeled)
    assert terms.weights["separation"] == 0.3 and terms["separation"] > 0
    with torch.no_grad():
        decided, guess = (finest(trainer.network(x)).argmax(1, keepdim=True) for x in (labeled.image, unlabeled.weak))
    label = finest(labeled.target)
    for k in (1, 2):
        assert torch.equal(streams[0][:, k - 1 : k], (label == k) & labeled.valid)
        assert torch.equal(streams[1][:, k - 1 : k], (guess == k) & unlabeled.valid)
        right = (label == k) & labeled.valid & (decided == k)
        assert remembered[0][2][k - 1].sum() == right.sum()
    assert sum(int(valid.sum()) for valid in remembered[0][2]) > 0


def test_the_memory_follows_the_option_and_the_checkpoint(ready_dataset, tmp_path, monkeypatch):
    scores = []
    for which in ("highest", "lowest"):
        trainer = started(ready_dataset(), remember=which)
        replace = trainer.auxiliary["memory"].replace
        monkeypatch.setattr(trainer.auxiliary["memory"], "replace", lambda *given: scores.append(given[1]))
        trainer.losses(*batch_of(trainer))
    torch.testing.assert_close(scores[0], -scores[1])
    monkeypatch.setattr(trainer.auxiliary["memory"], "replace", replace)
    list(steps(trainer, 2))
    assert trainer.auxiliary["memory"].number.any()
    trainer.save_checkpoint(str(tmp_path / "c.pth"))
    other = made(ready_dataset(), remember="lowest")
    other.load_checkpoint(str(tmp_path / "c.pth"))
    for name in ("vectors", "number"):
        assert torch.equal(getattr(trainer.auxiliary["memory"], name), getattr(other.auxiliary["memory"], name))


def test_without_memory_the_heads_still_get_gradients(ready_dataset):
    trainer = started(ready_dataset())
    labeled, unlabeled = batch_of(trainer)
    finest(labeled.target)[:] = 0
    separation = trainer.losses(labeled, unlabeled)["separation"]
    assert separation == 0
    found = torch.autograd.grad(separation, [*trainer.auxiliary["heads"].parameters()])
    assert not any(g.any() for g in found)


def test_without_weights_no_unlabelled_patch_is_looked_at(ready_dataset):
    trainer = started(ready_dataset(), smoothness_weight=0.0, separation_weight=0.0)
    seen = []
    trainer.network.register_forward_pre_hook(lambda network, inputs: seen.append(len(inputs[0])))
    assert [*trainer.losses(*batch_of(trainer))] == ["supervised"] and seen == [2]
