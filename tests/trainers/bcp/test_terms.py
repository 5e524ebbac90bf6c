"""The terms of BCP, its mixtures and its two stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.losses.balanced import weighted_dice
from nnunet_ssl.losses.pseudo_label import pseudo_cross_entropy, pseudo_dice
from nnunet_ssl.trainers.bcp.trainer import repeated
from nnunet_ssl.training.deep_supervision import finest
from tests.running import same_weights, weights
from tests.trainers.registered import make_registered

pytestmark = pytest.mark.usefixtures("no_figures")
TRAINING = {"num_epochs": 4, "num_iterations_per_epoch": 1, "seed": 1}


def started(dataset, configuration: str = "2d", epoch: int = 2, training: Any = TRAINING, **options: Any) -> Any:
    options = {"pretrain_fraction": 0.5, "largest_component": "off", "guard": False} | options
    trainer = make_registered(
        dataset, "nnUNetTrainerBCP", configuration, split="n2", training=training, hyperparameters=options
    )
    trainer.on_train_start()
    trainer.current_epoch = epoch
    trainer.on_train_epoch_start()
    return trainer


def batch_of(trainer: Any) -> tuple[Any, Any]:
    labeled, unlabeled = trainer.split_batch(next(trainer.dataloader_train))
    unlabeled.valid[:] = True
    return labeled, unlabeled


def recorded(trainer: Any, monkeypatch) -> tuple[list[torch.Tensor], list[tuple[torch.Tensor, ...]]]:
    """Images that the network sees, and (logits, label, kept) of the finest resolution of each region."""
    images, regions = [], []
    forward, loss = trainer.forward, trainer.of_region

    def of_region(z, label, region, counted):
        if z.shape[2:] == images[-1].shape[2:]:
            regions.append((z, label, region))
        return loss(z, label, region, counted)

    monkeypatch.setattr(trainer, "forward", lambda network, x: images.append(x) or forward(network, x))
    monkeypatch.setattr(trainer, "of_region", of_region)
    return images, regions


def test_each_pair_shows_the_labelled_patch_on_one_side_of_the_box(ready_dataset, monkeypatch):
    trainer = started(ready_dataset())
    labeled, unlabeled = batch_of(trainer)
    unlabeled.valid[:, :, :4] = False
    images, regions = recorded(trainer, monkeypatch)
    terms = trainer.losses(labeled, unlabeled)
    assert set(terms) == {"supervised", "pseudo_label"} and terms.weights == {"pseudo_label": 0.5}
    (_, label, own), (_, pseudo, rest) = regions
    assert torch.equal(own | rest, own | unlabeled.valid) and not (own & rest).any()
    assert own[0].sum() == 256 - 100 and own[1].sum() == 100  # boxes of 10 x 10 in 16 x 16: 0.39
    mixed = images[0]
    assert torch.equal(mixed, torch.where(own, labeled.image, unlabeled.weak))
    assert torch.equal(label, finest(labeled.target))
    assert torch.equal(pseudo, trainer.teacher(unlabeled.weak).argmax(1, keepdim=True))


@pytest.mark.parametrize("everywhere", [True, False])
def test_a_box_of_the_whole_patch_or_none_leaves_a_labelled_and_an_unlabelled_patch(
    ready_dataset, monkeypatch, everywhere
):
    """The one alone with weight 1, the other one alone with weight u."""
    trainer = started(ready_dataset(), box_edge=1.0)
    labeled, unlabeled = batch_of(trainer)
    draw = trainer.draw_boxes
    monkeypatch.setattr(trainer, "draw_boxes", lambda x: draw(x) if everywhere else ~draw(x))
    images, regions = recorded(trainer, monkeypatch)
    terms = trainer.losses(labeled, unlabeled)
    mine, other = (slice(1, 2), slice(1)) if everywhere else (slice(1), slice(1, 2))
    assert torch.equal(images[0][mine], labeled.image[mine]) and torch.equal(images[0][other], unlabeled.weak[other])
    for (_, _, region), whole, empty in zip(regions, (mine, other), (other, mine), strict=True):
        assert region[whole].all() and not region[empty].any()
    outputs, label = trainer.network(images[0]), trainer.teacher(unlabeled.weak).argmax(1, keepdim=True)
    for name, patch, truth, weight in (
        ("supervised", mine, finest(labeled.target), 1.0), ("pseudo_label", other, label, 0.5),
    ):  # fmt: skip
        alone, everything = [z[patch] for z in outputs], torch.ones_like(truth[patch], dtype=torch.bool)
        expected = trainer.deep_supervised(trainer.of_region, alone, truth[patch], everything, None)
        assert terms[name].item() == pytest.approx(weight * expected.item(), rel=1e-5)


def test_the_other_order_with_the_other_side_of_the_box_swaps_the_two_mixtures(ready_dataset, monkeypatch):
    trainer = started(ready_dataset())
    labeled, unlabeled = batch_of(trainer)
    box, found = trainer.draw_boxes(labeled.image), []
    swapped = (
        LabeledBatch(labeled.image.flip(0), [t.flip(0) for t in labeled.target]),
        UnlabeledBatch(unlabeled.weak.flip(0), unlabeled.valid.flip(0)),
    )
    for batches, boxes in (((labeled, unlabeled), box), (swapped, ~box.flip(0))):
        monkeypatch.setattr(trainer, "draw_boxes", lambda _, boxes=boxes: boxes)
        with monkeypatch.context() as patch:
            images, regions = recorded(trainer, patch)
            found.append((trainer.losses(*batches), images[0], [region for _, _, region in regions]))
    (first, image, regions), (second, other, others) = found
    assert torch.equal(other, image.flip(0)) and not torch.equal(other, image)
    assert all(torch.equal(b, a.flip(0)) for a, b in zip(regions, others, strict=True))
    assert {k: v.item() for k, v in second.items()} == pytest.approx({k: v.item() for k, v in first.items()}, rel=1e-5)


def test_true_pseudo_labels_with_the_weight_of_labels_are_supervised_cutmix(ready_dataset, monkeypatch):
    trainer = started(ready_dataset(), unlabeled_weight=1.0)
    (labeled, unlabeled), (other, _) = batch_of(trainer), batch_of(trainer)
    truth, box = finest(other.target).long(), trainer.draw_boxes(labeled.image)
    unlabeled._weak = other.image
    trainer.teacher = lambda images: F.one_hot(truth[:, 0], 3).movedim(-1, 1).float()
    monkeypatch.setattr(trainer, "draw_boxes", lambda _: box)
    region = torch.stack([~box[0], box[1]])
    outputs = trainer.network(torch.where(region, labeled.image, other.image))
    label = torch.where(region, finest(labeled.target).long(), truth)

    def total() -> float:
        return sum(trainer.losses(labeled, unlabeled).values()).item()

    sides = [trainer.deep_supervised(trainer.of_region, outputs, label, side, None) for side in (region, ~region)]
    assert total() == pytest.approx(sum(sides).item(), rel=1e-5)
    monkeypatch.setattr(trainer, "of_region", lambda z, y, side, _: pseudo_cross_entropy(z, y, side, side))
    plain = trainer.deep_supervised(lambda z, y: F.cross_entropy(z, y[:, 0]), outputs, label)
    assert total() == pytest.approx(2 * plain.item(), rel=1e-5)  # two sides of equal size, each a mean


def test_values_of_a_region():
    """p = (.9,.1), (.3,.7), (.6,.4), (.2,.8), M = (1,1,0,0), labels 0 1 | 0 1."""
    z = torch.tensor([[0.9, 0.3, 0.6, 0.2], [0.1, 0.7, 0.4, 0.8]], dtype=torch.float64).log().view(1, 2, 1, 4)
    label, inside = torch.tensor([0, 1, 0, 1]).view(1, 1, 1, 4), torch.tensor([1, 1, 0, 0]).view(1, 1, 1, 4).bool()
    expected = {True: (0.23101773, 0.05964912), False: (0.36698459, 0.12698413)}
    for outer, (entropy, dice) in expected.items():
        region = inside if outer else ~inside
        assert pseudo_cross_entropy(z, label, region, region).item() == pytest.approx(entropy, abs=1e-8)
        assert pseudo_dice(z, label, region, smooth=1e-10).item() == pytest.approx(dice, abs=1e-8)


def test_values_of_a_region_with_the_dice_of_the_left_atrium():
    """The release's other form, which is not the trainer's: probabilities are not squared, and all is halved."""
    z = torch.tensor([[0.9, 0.3, 0.6, 0.2], [0.1, 0.7, 0.4, 0.8]], dtype=torch.float64).log().view(1, 2, 1, 4)
    label, outer = torch.tensor([0, 1, 0, 1]).view(1, 1, 1, 4), torch.tensor([1, 1, 0, 0]).view(1, 1, 1, 4).bool()
    alike = torch.ones(2, dtype=torch.float64)

    def dice(region: torch.Tensor) -> float:
        each = [weighted_dice(*given, alike, region, 1e-5) for given in ((z.flip(1), 1 - label), (z, label))]
        return sum(each).item() / 2

    entropy = [pseudo_cross_entropy(z, label, side, side).item() for side in (outer, ~outer)]
    assert [dice(outer), dice(~outer)] == pytest.approx([0.20201917, 0.30302876], abs=2e-8)
    for shares, value in (((1.0, 0.5), 0.38402179), ((0.5, 1.0), 0.44326590)):
        found = sum(w * (c + dice(side)) for w, c, side in zip(shares, entropy, (outer, ~outer), strict=True)) / 2
        assert found == pytest.approx(value, abs=2e-8)


def test_weight_0_leaves_pseudo_labelled_voxels_without_gradient(ready_dataset, monkeypatch):
    trainer = started(ready_dataset(), unlabeled_weight=0.0)
    _, regions = recorded(trainer, monkeypatch)
    terms = trainer.losses(*batch_of(trainer))
    assert set(terms) == {"supervised"}
    ((z, _, own),) = regions
    (gradient,) = torch.autograd.grad(terms["supervised"], z)
    assert not gradient[~own.expand_as(gradient)].any() and gradient[own.expand_as(gradient)].all()


def test_before_the_teacher_no_unlabelled_patch_is_looked_at(ready_dataset, monkeypatch):
    trainer = started(ready_dataset(), epoch=1)
    labeled, unlabeled = batch_of(trainer)
    images, _ = recorded(trainer, monkeypatch)
    unlabeled._weak = unlabeled._make_strong = None
    terms = trainer.losses(labeled, unlabeled)
    assert set(terms) == {"supervised"}
    (mixed,) = images
    other = labeled.image.roll(1, 0)
    foreign = mixed != labeled.image
    assert torch.equal(mixed[foreign], other[foreign]) and 60 < foreign.sum() <= 200


def test_labels_of_labelled_pairs_are_mixed_like_the_images_at_every_resolution(ready_dataset, monkeypatch):
    trainer = started(ready_dataset(), epoch=0)
    labeled, unlabeled = batch_of(trainer)
    labeled._image = finest(labeled.target).float().clone()  # the image is its label
    images, _ = recorded(trainer, monkeypatch)
    asked = []
    monkeypatch.setattr(trainer, "supervised_loss", lambda z, y: asked.append(y) or torch.zeros(()))
    trainer.losses(labeled, unlabeled)
    (target,) = asked
    assert len(target) == len(labeled.target) > 1
    assert torch.equal(target[0].float(), images[0])
    assert all(t.shape == own.shape for t, own in zip(target, labeled.target, strict=True))


def test_teacher_is_the_student_until_it_begins_and_then_its_average(ready_dataset):
    trainer = started(ready_dataset(), epoch=0)
    for epoch in range(4):
        trainer.current_epoch, trainer.step = epoch, 0
        before = weights(trainer.auxiliary["teacher"])
        trainer.train_step(next(trainer.dataloader_train))
        student, teacher = weights(trainer.network), weights(trainer.auxiliary["teacher"])
        if epoch < 2:
            assert same_weights(student, teacher)
        else:
            for t, b, s in zip(teacher, before, student, strict=True):
                torch.testing.assert_close(t, 0.99 * b + 0.01 * s)


def test_unmixed_supervision_and_no_mixing(ready_dataset, monkeypatch):
    trainer = started(ready_dataset(), sup_unmixed=True)
    labeled, unlabeled = batch_of(trainer)
    terms = trainer.losses(labeled, unlabeled)
    assert set(terms) == {"supervised", "pseudo_label", "unmixed"}
    plain = trainer.supervised_loss(trainer.network(labeled.image), labeled.target)
    assert terms["unmixed"].item() == pytest.approx(plain.item(), rel=1e-5)
    trainer = started(ready_dataset(), mix=False)
    labeled, unlabeled = batch_of(trainer)
    images, regions = recorded(trainer, monkeypatch)
    terms = trainer.losses(labeled, unlabeled)
    plain = trainer.supervised_loss(trainer.network(labeled.image), labeled.target)
    assert terms["supervised"].item() == pytest.approx(plain.item(), rel=1e-5)
    assert torch.equal(images[0], torch.cat([labeled.image, unlabeled.weak])) and regions[0][2].all()


def test_pseudo_labels_keep_their_largest_pieces(ready_dataset):
    for recipe in ({}, {"labels": {"background": 0, "whole": (1, 2), "box": 2}, "regions_class_order": (1, 2)}):
        trainer = started(ready_dataset(**recipe))
        trainer.largest.chosen = [False, True]
        label = torch.zeros(1, 1, 8, 8, dtype=torch.int64)
        label[..., 0, :3], label[..., 4, :2] = 1, 1
        label[..., 2, :3], label[..., 6, :2] = 2, 2
        if recipe:
            label = torch.cat([label == 1, label == 2], 1)
        filtered = trainer.largest(label)
        expected = label.clone()
        expected[:, -1, 6] = 0
        assert torch.equal(filtered, expected)
        trainer.largest.chosen = [False, False]
        assert trainer.largest(label) is label


def test_classes_in_one_piece_are_found_in_the_labelled_cases(ready_dataset):
    trainer = started(ready_dataset(), "3d_fullres", largest_component="auto")
    assert trainer.largest.chosen == [True, True]
    assert "keep the largest piece of: 1, 2" in Path(trainer.log_file).read_text()
    assert started(ready_dataset(), largest_component="on").largest.chosen == [True, True]


def test_one_box_for_a_step_or_for_each_pair(ready_dataset):
    patches = torch.zeros(6, 1, 16, 16)
    for per, number in (("batch", 1), ("pair", 6)):
        boxes = started(ready_dataset(), box_per=per).draw_boxes(patches)
        assert boxes.shape == (6, 1, 16, 16) and boxes.flatten(1).sum(1).tolist() == [100] * 6
        assert len({tuple(b.flatten().tolist()) for b in boxes}) <= number and (
            per == "batch" or not boxes.eq(boxes[:1]).all()
        )
    thin = started(ready_dataset()).draw_boxes(torch.zeros(1, 1, 5, 12, 12))
    assert thin.sum() == 5 * 8 * 8  # a thin axis is not cut


def test_as_many_pairs_as_labelled_patches():
    x = torch.arange(3).view(3, 1)
    assert repeated(x, 2).flatten().tolist() == [0, 1] and repeated(x, 7).flatten().tolist() == [0, 1, 2, 0, 1, 2, 0]
