"""What one step of the Lagrange-duality trainer does: values, who learns from what, how its multipliers move."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.losses.lagrangian import (
    PAPER_WEIGHTS,
    class_volumes,
    relative_volume_error,
    soft_volumes,
    squared_norm,
)
from nnunet_ssl.trainers.ldc.trainer import LABELED, UNLABELED, nnUNetTrainerLDC
from tests.running import SHORT, make_trainer, same_weights, weights

STANDING_STILL = {**SHORT, "initial_lr": 0.0}
PARTS = ("network", "distance_head", "projection")


class OneResolution(nnUNetTrainerLDC):
    def set_up(self) -> None:
        super().set_up()
        self.enable_deep_supervision = False


def started(dataset: Path, configuration: str = "3d_fullres", trainer: type = nnUNetTrainerLDC, **options: Any) -> Any:
    options.setdefault("training", SHORT)
    made = make_trainer(dataset, trainer, configuration, **options)
    made.on_train_start()
    made.on_train_epoch_start()
    return made


def batch_of(trainer: Any) -> tuple[LabeledBatch, UnlabeledBatch]:
    labeled, unlabeled = trainer.split_batch(next(trainer.dataloader_train))
    for valid in (labeled.valid, unlabeled.valid):  # no padding, unless a test wants some
        valid.fill_(True)
    return labeled, unlabeled


def up_the_ramp(trainer: Any) -> Any:
    trainer.current_epoch = 1  # of two
    assert trainer.unlabeled_ramp == 1.0
    return trainer


def sees_objects(trainer: Any) -> Any:
    """The teacher segments the first class everywhere, and its distance head finds every voxel inside."""
    trainer.auxiliary["teacher"].decoder.seg_layers[-1].bias.data[1] += 99
    trainer.auxiliary["teacher_distance_head"].conv.bias.data -= 9
    return trainer


def modules(trainer: Any) -> dict[str, nn.Module]:
    return {"network": trainer.network, **trainer.auxiliary}


def volume_error(logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    predicted, expected = class_volumes(logits, target, valid)
    return (predicted - expected).detach()


# ---- values


def test_values_of_undecided_networks(make_dataset):
    trainer = up_the_ramp(started(make_dataset(), trainer=OneResolution, hyperparameters={"slice_distance": 0}))
    heads = [n.decoder.seg_layers[-1] for n in (trainer.network, trainer.auxiliary["teacher"])]
    heads += [trainer.auxiliary[n].conv for n in ("distance_head", "teacher_distance_head")]
    for head in heads:
        head.weight.data.zero_(), head.bias.data.zero_()
    sees_objects(trainer)
    labeled, unlabeled = batch_of(trainer)
    terms = {name: loss.item() for name, loss in trainer.losses(labeled, unlabeled).items()}

    def consistency(target: Tensor) -> float:
        voxels, value = target[0].numel(), 0.3 * math.log(3)
        for c, w in zip((1, 2), trainer.dice_weights().tolist(), strict=True):
            counts = [(t == c).sum().item() for t in target]
            value += 0.5 * w * (1 - sum((2 * n / 3 + 1e-5) / (voxels / 3 + n + 1e-5) for n in counts) / len(counts))
        return value

    distance = nn.functional.interpolate(labeled.extra["distance"], labeled.weak.shape[2:], mode="trilinear")
    expected = {
        "constrained": consistency(labeled.target),
        "constrained_unlabeled": 0.1 * consistency(torch.ones_like(unlabeled.valid)),
        "squared_error": 0.2 * 2 / 9,
        "distance": 0.2 * distance.square().mean().item(),
        "contrast": 0.1 * math.log(8 * 4),  # 8 equal slices of each of 4 patches
        "norm": 0.0,
    }
    assert terms == pytest.approx(expected, rel=1e-5)
    assert trainer.monitor.epoch_means()["contrast_collapse"] == pytest.approx(0, abs=1e-5)
    assert labeled.extra["distance"].shape == (2, 2, 8, 8, 8) and not distance.requires_grad


def test_with_multipliers_at_zero_the_lagrangian_is_the_consistency_bit_for_bit(make_dataset):
    trainer = started(make_dataset())
    labeled, unlabeled = batch_of(trainer)
    outputs = [o.detach().requires_grad_() for o in trainer.forward_joint(labeled.weak, unlabeled.strong)[0]]
    trainer.loss.weight_factors = (0.75, 0.25)
    found = []
    for constrained in (True, False):
        if constrained:
            loss = trainer.constrained(LABELED, outputs, labeled.target, None)
        else:
            loss = trainer.deep_supervised(trainer._objective, outputs, labeled.target, None)
        found.append([loss, *torch.autograd.grad(loss, outputs)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True)) and found[0][2].any()
    trainer.dual.multipliers.volume[LABELED] += 0.1
    loss = trainer.constrained(LABELED, outputs, labeled.target, None)
    error = volume_error(outputs[0], labeled.target[0])
    torch.testing.assert_close(loss - found[0][0], 0.1 * error.sum())


def test_bounds_enter_the_loss_with_their_multipliers(make_dataset):
    trainer = up_the_ramp(started(make_dataset(), training=STANDING_STILL, hyperparameters={"value_margin": 0.2}))
    trainer.train_step(next(trainer.dataloader_train))
    own = trainer.dual.multipliers
    assert 0 < own.lower[LABELED] < 0.2 * 0.01 and own.lower[UNLABELED] > 0
    labeled, unlabeled = batch_of(trainer)
    outputs, _ = trainer.forward_joint(labeled.weak, unlabeled.strong)
    before = trainer.constrained(LABELED, outputs, labeled.target, None)
    probability = outputs[0].softmax(1)
    for multipliers, excess in ((own.lower, 0.2 - probability), (own.upper, probability - 0.8)):
        multipliers[LABELED] += 1
        after = trainer.constrained(LABELED, outputs, labeled.target, None)
        torch.testing.assert_close(after - before, excess.relu().mean() - 1e-4, atol=1e-6, rtol=1e-4)
        before = after
    trainer.monitor.epoch_means()
    trainer.step = 0
    trainer.train_step(next(trainer.dataloader_train))
    means = trainer.monitor.epoch_means()
    assert {"violation_upper_labeled", "weight_lower_unlabeled", "complementarity"} <= set(means)


@pytest.mark.parametrize("counts, rule, expected", [
    ({1: 500, 2: 20}, "auto", PAPER_WEIGHTS),
    ({1: 20, 2: 500}, "auto", PAPER_WEIGHTS[::-1]),
    ({1: 16, 2: 1}, "frequency", (1 / 3, 2 / 3)),
    ({1: 16, 2: 1}, "uniform", (0.5, 0.5)),
])  # fmt: skip
def test_weights_of_the_classes(make_dataset, monkeypatch, counts, rule, expected):
    monkeypatch.setattr("nnunet_ssl.trainers.ldc.dice_weights.count_labels", lambda folder, cases: {0: 9999, **counts})
    trainer = make_trainer(make_dataset(preprocess=False), nnUNetTrainerLDC, hyperparameters={"class_weights": rule})
    assert trainer.dice_weights().tolist() == pytest.approx(expected)


# ---- who learns from what


def test_the_student_sees_strong_views_and_the_teacher_weak_ones_of_both_streams(make_dataset):
    trainer, seen = up_the_ramp(started(make_dataset())), {}
    forward = trainer.forward

    def record(module: nn.Module, images: Any) -> Any:
        names = [name for name, known in modules(trainer).items() if known is module]
        seen.setdefault(names[0], []).append(images)
        return forward(module, images)

    trainer.forward = record
    labeled, unlabeled = batch_of(trainer)
    trainer.losses(labeled, unlabeled)
    assert torch.equal(torch.cat(seen["network"]), torch.cat((labeled.strong, unlabeled.strong)))
    assert torch.equal(torch.cat(seen["teacher"]), torch.cat((unlabeled.weak, labeled.weak)))
    assert not torch.equal(labeled.strong, labeled.weak) and not torch.equal(unlabeled.strong, unlabeled.weak)


def test_padding_of_labelled_patches_shows_no_object(make_dataset):
    trainer = sees_objects(up_the_ramp(started(make_dataset())))
    labeled, unlabeled = batch_of(trainer)
    number, found = len(labeled.weak) + len(unlabeled.weak), []
    for valid in (True, False):
        labeled.valid[0] = valid
        trainer.monitor.epoch_means()
        trainer.losses(labeled, unlabeled)
        found.append(trainer.monitor.epoch_means()["count_slices"])
    assert found == [8 * number, 8 * (number - 1)]


def test_slices_in_which_the_teacher_segments_nothing_are_not_contrasted(make_dataset):
    trainer = sees_objects(up_the_ramp(started(make_dataset())))
    batch = batch_of(trainer)
    assert trainer.losses(*batch)["contrast"] > 0
    assert -1 <= trainer.monitor.epoch_means()["similarity_negatives"] <= 1
    trainer.auxiliary["teacher"].decoder.seg_layers[-1].bias.data[0] += 999  # while the distances stay negative
    assert trainer.losses(*batch)["contrast"] == 0
    means = trainer.monitor.epoch_means()
    assert means["count_slices"] == 0 and math.isnan(means["similarity_positives"])


def test_the_teacher_looks_at_labelled_patches_only_where_slices_are_contrasted(make_dataset):
    trainer, seen = started(make_dataset(), hyperparameters={"warmup_fraction": 0.3}), []
    teacher = trainer.teacher
    trainer.teacher = lambda images: seen.append(len(images)) or teacher(images)
    trainer.teacher.head = teacher.head
    batch = batch_of(trainer)
    for epoch in (0, 1):
        trainer.current_epoch = epoch
        terms = trainer.losses(*batch)
        assert (terms.weights["contrast"] == 0) == (epoch == 0)
        assert terms["contrast"].requires_grad and terms["contrast"].isfinite()
    assert seen == [2, 2, 2]


@pytest.mark.parametrize("options, epoch, reached", [
    ({"warmup_fraction": 0.3}, 0, False),
    ({"constrained_weight": 0.0, "contrast_weight": 1.0}, 1, True),
    ({"contrast_weight": 0.0}, 1, True),
    ({"unlabeled_weight": 0.0, "contrast_weight": 0.0}, 1, False),
])  # fmt: skip
def test_unlabelled_images_teach_only_with_a_weight(make_dataset, options, epoch, reached):
    trainer = started(make_dataset(), trainer=OneResolution, hyperparameters={"slices": 16, **options})
    trainer.current_epoch = epoch
    sees_objects(trainer)
    labeled, unlabeled = batch_of(trainer)
    other = UnlabeledBatch(unlabeled.weak + torch.randn_like(unlabeled.weak), unlabeled.valid, lambda x: x)
    gradients = []
    for images in (UnlabeledBatch(unlabeled.weak, unlabeled.valid, lambda x: x), other):
        trainer.optimizer.zero_grad()
        sum(trainer.losses(labeled, images).values()).backward()
        # every trainable weight takes part, in the warm-up too
        for name, module in modules(trainer).items():
            trained = [p for p in module.parameters() if p.requires_grad]
            assert all(p.grad is not None for p in trained) and bool(trained) != name.startswith("teacher")
        gradients.append(torch.cat([p.grad.flatten() for p in trainer.network.parameters() if p.requires_grad]))
    difference = (gradients[0] - gradients[1]).abs().max()
    assert (difference > 1e-6) == reached


def test_nothing_is_projected_without_contrast(make_dataset):
    trainer = started(make_dataset(), hyperparameters={"contrast_weight": 0.0})
    assert set(trainer.auxiliary) == {"teacher", "distance_head", "teacher_distance_head"}
    assert "contrast" not in trainer.losses(*batch_of(trainer))


# ---- multipliers


@pytest.mark.parametrize("ascent", ["relative", "plain"])
@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_multipliers_follow_the_volumes_of_their_step(make_dataset, configuration, ascent):
    """The plain rule from the first step, the other behind 0.3 of 6 steps, as far as the term's weight has risen."""
    options = {"warmup_fraction": 0.3, "constrained_weight": 0.8, "unlabeled_weight": 0.5, "ascent": ascent}
    trainer = started(make_dataset(), configuration, training=STANDING_STILL, hyperparameters=options)
    own, total = trainer.dual.multipliers, {}
    seen: dict[str, Tensor] = {}
    constrained = trainer.constrained

    def record(part: str, outputs: Any, target: Any, mask: Any, teacher: Tensor | None = None) -> Tensor:
        logits, truth, valid = [x[0] if isinstance(x, list) else x for x in (outputs, target, mask)]
        predicted, expected = (v.detach() for v in class_volumes(logits, truth, valid))
        if ascent == "plain":
            seen[part] = predicted - expected
        else:
            seen[part] = relative_volume_error(predicted, expected if part == LABELED else soft_volumes(teacher, valid))
        return constrained(part, outputs, target, mask, teacher)

    trainer.constrained = record
    for step in range(6):
        trainer.current_epoch, trainer.step = divmod(step, 3)
        ramp = trainer.ramp(0.3, 0.3, from_start=True)
        trainer.train_step(next(trainer.dataloader_train))
        for part, error in seen.items():
            weight = {LABELED: 0.8, UNLABELED: 0.8 * 0.5}[part] * ramp
            if ascent == "plain":
                weight = float(part == LABELED or step >= 2)
            total[part] = total.get(part, 0) + 0.01 * weight * error.double()
        for part in (LABELED, UNLABELED):
            moved = total.get(part, torch.zeros_like(own.volume[part]))
            torch.testing.assert_close(own.volume[part], moved, atol=1e-8, rtol=1e-4)
        assert own.volume[LABELED].any() == (ascent == "plain" or step >= 2)
    assert own.volume[LABELED].any() and own.volume[UNLABELED].any() and own.norm == 0
    means = trainer.monitor.epoch_means()
    assert means["weight_volume_labeled_1"] != 0 and means["violation_norm"] == pytest.approx(-0.5)
    error = means["volume_labeled_1"] - means["target_volume_labeled_1"]
    assert means["volume_error_labeled_1"] == pytest.approx(error, abs=1e-6)
    assert abs(error) <= means["violation_volume_labeled"] + 1e-6


def test_without_their_weight_the_constraints_of_unlabelled_patches_move_no_multiplier(make_dataset):
    options = {"ascent": "plain", "constrained_weight": 0.0, "contrast_weight": 1.0}
    trainer = up_the_ramp(started(make_dataset(), hyperparameters=options))
    trainer.train_step(next(trainer.dataloader_train))
    assert trainer.dual.multipliers.volume[LABELED].any() and not trainer.dual.multipliers.volume[UNLABELED].any()


def test_a_step_that_mixed_precision_skips_moves_no_multiplier(make_dataset):
    trainer = up_the_ramp(started(make_dataset()))
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    before = weights(trainer.network)
    broken = next(trainer.network.parameters()).register_hook(lambda g: g * torch.inf)
    trainer.train_step(next(trainer.dataloader_train))
    assert not any(m.any() for m in trainer.dual.multipliers.state_dict().values())
    assert same_weights(before, weights(trainer.network)) and trainer.grad_scaler.get_scale() == 1.0
    broken.remove()
    trainer.train_step(next(trainer.dataloader_train))
    assert trainer.dual.multipliers.volume[UNLABELED].any()


def test_the_norm_of_the_weights_pulls_once_it_exceeds_its_budget(make_dataset):
    trainer = started(make_dataset(), trainer=OneResolution, training=STANDING_STILL)
    own, net = trainer.dual.multipliers, trainer.network
    matrices = {id(p) for p in trainer.dual.weights}
    assert matrices == {id(p) for p in net.parameters() if p.ndim >= 2 and p.requires_grad}
    start = squared_norm(p for p in net.parameters() if id(p) in matrices)
    torch.testing.assert_close(trainer.dual.budget, 2 * start)
    for parameter in net.parameters():
        parameter.data *= 2
    trainer.train_step(next(trainer.dataloader_train))
    assert own.norm.item() == pytest.approx(0.01)
    own.norm.fill_(3.0)
    seen = {}
    trainer.clipping_groups = lambda: (
        seen.update({id(p): p.grad.clone() for p in net.parameters() if p.requires_grad}) or []
    )
    trainer.train_step(next(trainer.dataloader_train))
    assert len(seen) > len(matrices)
    for parameter in (p for p in net.parameters() if p.requires_grad):
        expected = seen[id(parameter)]
        if id(parameter) in matrices:
            expected = expected + 6.0 * parameter.detach() / trainer.dual.budget
        torch.testing.assert_close(parameter.grad, expected)
    means = trainer.monitor.epoch_means()
    assert means["loss_norm"] == pytest.approx(1.5, rel=1e-3)  # (0 + 3 (4 / 2 - 1)) / 2


@pytest.mark.parametrize("options, frozen", [({"reset_each_epoch": True}, True), ({"multiplier_step": 0.0}, True),
                                             ({}, False)])  # fmt: skip
def test_multipliers_persist_over_epochs_unless_told_otherwise(make_dataset, options, frozen):
    trainer = up_the_ramp(started(make_dataset(), hyperparameters=options))
    trainer.train_step(next(trainer.dataloader_train))
    trainer.on_train_epoch_start()
    assert trainer.dual.multipliers.volume[LABELED].any() != frozen


# ---- teacher and pseudo-labels


def test_teacher_and_its_heads_average_the_student(make_dataset):
    trainer = started(make_dataset(), hyperparameters={"ema_decay": 0.25})
    for name in ("teacher", "teacher_distance_head", "teacher_projection"):
        assert not trainer.auxiliary[name].training
    pairs = [("teacher", trainer.network)] + [(f"teacher_{n}", trainer.auxiliary[n]) for n in PARTS[1:]]
    trainer.train_step(next(trainer.dataloader_train))
    for name, student in pairs:  # decay 1 - 1 / 1
        assert same_weights(weights(trainer.auxiliary[name]), weights(student))
    before = {name: weights(trainer.auxiliary[name]) for name, _ in pairs}
    trainer.train_step(next(trainer.dataloader_train))
    for name, student in pairs:  # min(1 - 1 / 2, 0.25)
        for averaged, old, new in zip(weights(trainer.auxiliary[name]), before[name], weights(student), strict=True):
            torch.testing.assert_close(averaged, 0.25 * old + 0.75 * new)
    assert not same_weights(before["teacher"], weights(trainer.network))


def test_pseudo_labels_are_hard_and_confident(make_dataset):
    logits = torch.tensor([[0.0, 3.0, 0.5], [0.1, 0.0, 0.0], [0.0, 0.0, 0.0]]).view(1, 3, 3, 1, 1)
    valid = torch.ones(1, 1, 3, 1, 1, dtype=torch.bool)
    dataset = make_dataset(preprocess=False)
    for threshold, expected in ((0.0, [True] * 3), (0.5, [False, True, False])):
        trainer = make_trainer(dataset, nnUNetTrainerLDC, hyperparameters={"confidence_threshold": threshold})
        labels, certain = trainer.pseudo_labels(logits, valid)
        assert labels.flatten().tolist() == [1, 0, 0] and certain.flatten().tolist() == expected


def test_what_the_threshold_lets_through_is_on_record(make_dataset):
    trainer = up_the_ramp(started(make_dataset(), hyperparameters={"confidence_threshold": 0.999}))
    trainer.losses(*batch_of(trainer))
    kept = {name: share for name, share in trainer.monitor.epoch_means().items() if name.startswith("kept_")}
    assert kept and all(share == 0 or math.isnan(share) for share in kept.values())


def test_weight_of_unlabelled_terms_along_the_training(make_dataset):
    """Nothing for 2 % of it, then exp(-5 (1 - progress / 0.3)^2)."""
    trainer = make_trainer(make_dataset(preprocess=False), nnUNetTrainerLDC, training={**SHORT, "num_epochs": 10_000})
    for epoch, expected in ((0, 0.0), (199, 0.0), (200, math.exp(-5 * (1 - 1 / 15) ** 2)), (1500, math.exp(-1.25)),
                            (3000, 1.0), (9999, 1.0)):  # fmt: skip
        trainer.current_epoch = epoch
        assert trainer.unlabeled_ramp == pytest.approx(expected), epoch


def test_hyper_parameters_reach_the_multipliers(make_dataset):
    given = {"multiplier_step": 0.02, "multiplier_limit": 0.3, "penalty": 0.08}
    trainer = make_trainer(make_dataset(preprocess=False), nnUNetTrainerLDC, hyperparameters=given)
    trainer.initialize()
    own = trainer.dual.multipliers
    assert [own.step, own.limit, own.penalty] == [*given.values()]
    assert (own.bound_step, own.bound_limit, own.norm_step, own.norm_limit) == (0.01, 10.0, 0.01, 10.0)


def test_without_a_budget_the_norm_is_free(make_dataset):
    trainer = up_the_ramp(started(make_dataset(), "2d", hyperparameters={"norm_budget": 0.0, "penalty": 0.1}))
    for parameter in trainer.network.parameters():
        parameter.data *= 2
    trainer.train_step(next(trainer.dataloader_train))
    own = trainer.dual.multipliers
    assert own.norm == 0 and trainer.dual.norm_excess == -1 and own.norm_coefficient(trainer.dual.norm_excess) == 0
    assert all(weight.isfinite().all() for weight in trainer.dual.weights)
    assert own.volume[LABELED].any()


def test_mixed_precision_leaves_losses_and_heads_in_float32(make_dataset):
    trainer = up_the_ramp(started(make_dataset()))
    forward, heads = trainer.forward, {}

    def half(module: nn.Module, images: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = forward(module, images)
        if module in (trainer.auxiliary["distance_head"], trainer.auxiliary["teacher_distance_head"]):
            heads[module] = out.dtype
        return out

    trainer.forward = half
    terms = trainer.losses(*batch_of(trainer))
    assert {term.dtype for term in terms.values()} == {torch.float32} and set(heads.values()) == {torch.float32}
    assert all(term.isfinite() for term in terms.values())
    projection = trainer.auxiliary["projection"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert projection(torch.randn(3, 2, 8, 8)).dtype == torch.float32


def test_ignored_voxels_have_no_part(make_dataset):
    dataset = make_dataset(labels={"background": 0, "ball": 1, "box": 2, "ignore": 3})
    trainer = up_the_ramp(started(dataset, trainer=OneResolution))
    sees_objects(trainer)
    labeled, unlabeled = batch_of(trainer)
    labeled.target[:] = labeled.target.clamp(max=2)
    labeled.target[0, :, :, :4] = 3  # of every slice along the first axis
    outputs = trainer.forward_joint(labeled.weak, unlabeled.strong)[0].detach().requires_grad_()
    label, annotated = trainer.targets.labels(labeled.target), trainer.targets.annotated(labeled.target)
    loss = trainer.constrained(LABELED, outputs, label, annotated)
    (gradient,) = torch.autograd.grad(loss, outputs)
    assert not gradient[0, :, :, :4].any() and gradient[0, :, :, 4:].all() and gradient[1].all()
    trainer.monitor.epoch_means()
    trainer.losses(labeled, unlabeled)
    assert trainer.monitor.epoch_means()["count_slices"] == 3 * 8  # none of the first patch
