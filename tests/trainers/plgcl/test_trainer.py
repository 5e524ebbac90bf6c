"""What one step of PLGCL does: who learns from which term, what is in memory, which values are right."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from nnunet_ssl.losses.gaussian_contrast import gaussian_info_nce
from nnunet_ssl.trainers.plgcl.key_views import key_views
from nnunet_ssl.trainers.plgcl.patch_monitor import observe_candidates
from nnunet_ssl.trainers.plgcl.patch_sampling import cut_attended
from nnunet_ssl.trainers.plgcl.trainer import nnUNetTrainerPLGCL
from nnunet_ssl.trainers.supervised import nnUNetTrainerSupervised
from nnunet_ssl.training.monitor import Monitor
from nnunet_ssl.training.watch import Concerns, pull_of_terms
from tests.running import SHORT, make_trainer, same_weights, weights
from tests.trainers.inside import batch_of

REGIONS = {"labels": {"background": 0, "whole": (1, 2), "box": 2}, "regions_class_order": (1, 2)}
NOW = {"warmup_epochs": 0, "min_keys": 2, "memory_size": 64}  # contrast from the first step on


def started(dataset: Path, configuration: str = "3d_fullres", **options: Any) -> nnUNetTrainerPLGCL:
    options.setdefault("hyperparameters", NOW)
    trainer = make_trainer(dataset, nnUNetTrainerPLGCL, configuration, **options)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    return trainer


def half_way(trainer: nnUNetTrainerPLGCL) -> nnUNetTrainerPLGCL:
    trainer.current_epoch = trainer.num_epochs // 2
    return trainer


# ---- who learns from what


def test_a_step_without_enough_keys_reaches_the_head_all_the_same(make_dataset):
    """A head without gradient would stop DDP."""
    trainer = half_way(started(make_dataset(), hyperparameters={**NOW, "min_keys": 1000}))
    terms = trainer.losses(*batch_of(trainer))
    assert terms["contrast"].item() == 0.0
    terms["contrast"].backward()
    assert all(p.grad is not None and not p.grad.any() for p in trainer.auxiliary["head"].parameters())


def test_consistency_reaches_the_student_from_the_strong_view_alone(make_dataset):
    trainer = started(make_dataset(), hyperparameters={})
    labeled, unlabeled = batch_of(trainer)
    unlabeled.strong = unlabeled.strong.clone().requires_grad_()
    unlabeled.weak.requires_grad_()
    labeled.image.requires_grad_()
    trainer.losses(labeled, unlabeled)["consistency"].backward()
    assert unlabeled.strong.grad.any() and unlabeled.weak.grad is None and not labeled.image.grad.any()
    assert all(p.grad is None for p in trainer.auxiliary["teacher"].parameters())


# ---- values


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_the_first_contrast_is_not_that_of_embeddings_all_alike(make_dataset, configuration):
    """In the first step, with an untrained network and lambda 0: embeddings of the classes are not all alike."""
    trainer = started(make_dataset(), configuration)
    terms = trainer.losses(*batch_of(trainer))
    usable = int((trainer.auxiliary["memory"].counts >= 2).sum())
    collapse = math.log(1 + 4096 / usable * (usable - 1))
    assert usable >= 2 and abs(terms["contrast"].item() / 0.2 / collapse - 1) > 0.005
    pulls = pull_of_terms(terms, [*trainer.network.parameters()])
    assert pulls["contrast"] > 0.01
    below = trainer.monitor.epoch_means()["contrast_collapse"]
    assert below == pytest.approx(terms["contrast"].item() / 0.2 / collapse - 1, abs=1e-5)


def test_consistency_with_an_equal_student_is_the_entropy_of_the_prediction(make_dataset):
    trainer = started(make_dataset(), hyperparameters={})
    labeled, unlabeled = batch_of(trainer)
    unlabeled.strong = unlabeled.weak
    unlabeled.valid[0, :, 3:] = False
    terms = trainer.losses(labeled, unlabeled)
    with torch.no_grad():
        p = trainer.auxiliary["teacher"](unlabeled.weak).softmax(1)
    entropy = -(p * p.log()).sum(1, keepdim=True)[unlabeled.valid].mean()
    assert terms["consistency"].item() == pytest.approx(0.25 * entropy.item(), rel=1e-5)
    assert terms["contrast"].item() == 0.0
    trainer.hyperparameters = replace(trainer.hyperparameters, consistency_target="hard")
    confidence = p.max(1, keepdim=True).values[unlabeled.valid]
    expected = -0.25 * confidence.log().mean().item()
    assert trainer.losses(labeled, unlabeled)["consistency"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("recipe", [{}, REGIONS], ids=["classes", "regions"])
def test_contrast_is_the_mean_over_the_valid_queries(make_dataset, recipe):
    trainer = half_way(started(make_dataset(**recipe), hyperparameters={**NOW, "class_balanced": False}))
    labeled, unlabeled = batch_of(trainer)
    patches = trainer.sample_patches(labeled, unlabeled, trainer.auxiliary["teacher"](unlabeled.weak))
    memory = trainer.auxiliary["memory"]
    for parameter in trainer.auxiliary["teacher_head"].parameters():  # keys that vary
        parameter.data.add_(torch.randn_like(parameter))
    number = [int(patches.valid[patches.classes == k].sum()) for k in range(3)]
    pairs = torch.ones(3, 3, dtype=torch.bool)
    if recipe:
        pairs[1, 2] = pairs[2, 1] = False  # the box lies within the whole
    assert torch.equal(trainer.pairs, pairs)

    queries = trainer.embed(trainer.network, trainer.auxiliary["head"], patches)
    assert torch.allclose(queries.norm(dim=1), torch.ones(len(queries)))
    enough = sorted(number)[-2]  # exactly what the second class has
    for balanced in (False, True):
        options = {"class_balanced": balanced, "min_keys": enough}
        trainer.hyperparameters = replace(trainer.hyperparameters, **options)
        memory.load_state_dict({"keys": torch.zeros_like(memory.keys), "pushed": torch.zeros_like(memory.pushed)})
        loss = trainer.contrast(patches)
        assert memory.counts.tolist() == number
        usable = memory.counts >= enough
        assert usable.sum() >= 2
        weight, zeta = 4 * 0.5, 4096 / usable.sum().item()  # lambda half-way
        enters = usable & pairs[patches.classes]
        each = gaussian_info_nce(queries, patches.classes, *memory.statistics(), enters, 0.2, weight, zeta)
        counted = patches.valid & usable[patches.classes] & (enters.sum(1) > 1)
        means = [each[counted & (patches.classes == k)].mean() for k in range(3)]
        expected = torch.stack(means).nanmean() if balanced else each[counted].mean()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5) and loss.item() > 0


def test_regions_have_a_binary_consistency(make_dataset):
    trainer = started(make_dataset(**REGIONS), hyperparameters={})
    labeled, unlabeled = batch_of(trainer)
    terms = trainer.losses(labeled, unlabeled)
    _, (student, *_) = trainer.forward_joint(labeled.image, unlabeled.strong)
    target = trainer.auxiliary["teacher"](unlabeled.weak).sigmoid()
    error = F.binary_cross_entropy(student.sigmoid(), target, reduction="none").mean(1, keepdim=True)
    assert terms["consistency"].item() == pytest.approx(0.25 * error[unlabeled.valid].mean().item(), rel=1e-4)


def test_patches_show_their_class_in_the_units_of_the_network(make_dataset):
    trainer = started(make_dataset())
    labeled, unlabeled = batch_of(trainer)
    unlabeled.valid[:] = False  # leaves the labelled images, whose confidence is one-hot
    seen, select = [], trainer.sampler._select
    trainer.sampler._select = lambda *given: seen.append(select(*given)) or seen[-1]
    patches = trainer.sample_patches(labeled, unlabeled, trainer.auxiliary["teacher"](unlabeled.weak))
    assert patches.unit.shape == (3 * 21, 1, 4, 4, 4) and patches.valid.view(3, 21).any(1).all()
    assert patches.unit.min() == 0 and patches.unit.max() <= 1
    (selection,) = seen[:1]
    windows = selection.windows.flatten()
    labels = labeled.target[0].float()
    of_windows = cut_attended(labels, torch.ones_like(labels), trainer.grid, windows, torch.zeros_like(windows))
    images, k = patches.images(), patches.classes.view(-1, 1, 1, 1, 1)
    other = (of_windows != k) & patches.valid.view(-1, 1, 1, 1, 1)
    assert other.any() and not patches.unit[other].any()
    shown = (of_windows == k).flatten(1).sum(1)[patches.valid]
    assert shown.min() >= 10 and patches.unit[patches.valid].flatten(1).sum(1).min() > 0
    darkest = labeled.weak.flatten(1).quantile(0.005, dim=1)[windows // trainer.grid.number]
    torch.testing.assert_close(images[other], darkest.view(-1, 1, 1, 1, 1).expand_as(images)[other])


@pytest.mark.parametrize("dark", ["labeled", "unlabeled"])
def test_patches_are_cut_from_the_weak_views(make_dataset, dark):
    """Entropies of both streams are compared: no augmented intensities in one of them alone."""
    trainer = started(make_dataset())
    labeled, unlabeled = batch_of(trainer)
    unlabeled.strong = torch.full_like(unlabeled.weak, math.nan)
    labeled.image[:] = math.nan
    {"labeled": labeled, "unlabeled": unlabeled}[dark].weak[:] = 0.0  # black, whatever is attended
    patches = trainer.sample_patches(labeled, unlabeled, trainer.auxiliary["teacher"](unlabeled.weak))
    assert patches.images().isfinite().all() and patches.unit[patches.valid].max() > 0.1


def test_padding_of_either_stream_is_not_chosen(make_dataset):
    trainer = started(make_dataset())
    labeled, unlabeled = batch_of(trainer)
    for batch in (labeled, unlabeled):
        batch.valid[:] = False
        patches = trainer.sample_patches(labeled, unlabeled, trainer.auxiliary["teacher"](unlabeled.weak))
        assert patches.valid.any() == (batch is labeled)


def test_keys_are_the_teachers_from_augmented_patches(make_dataset):
    trainer = half_way(started(make_dataset()))
    patches = trainer.sample_patches(*(batch := batch_of(trainer)), trainer.auxiliary["teacher"](batch[1].weak))
    for parameter in trainer.auxiliary["teacher_head"].parameters():
        parameter.data.mul_(torch.randn_like(parameter))  # another one than the student's
    state = trainer.sampler.generator.get_state()
    trainer.contrast(patches)
    trainer.sampler.generator.set_state(state)
    views = patches._replace(unit=key_views(patches.unit, trainer.sampler.generator))
    assert (views.unit - patches.unit).abs().max() > 0.1
    expected = trainer.embed(trainer.auxiliary["teacher"], trainer.auxiliary["teacher_head"], views)
    memory = trainer.auxiliary["memory"]
    assert not trainer.auxiliary["teacher"].training and not memory.keys.requires_grad
    for k in range(3):
        kept = expected[patches.valid & (patches.classes == k)]
        torch.testing.assert_close(memory.keys[k, : len(kept)], kept)


def test_the_strong_view_is_morphological(make_dataset):
    trainer = make_trainer(make_dataset(preprocess=False), nnUNetTrainerPLGCL)
    for anisotropic, thin in ((False, ()), (True, (0,))):
        view = trainer.make_strong_view(anisotropic)
        assert view.drawn.transforms[-1].ignore_axes == thin


def test_lambda_rises_after_the_warm_up(make_dataset):
    trainer = make_trainer(make_dataset(), nnUNetTrainerPLGCL, training={**SHORT, "num_epochs": 100})
    assert trainer.warmup_epochs == 5
    found = []
    for epoch in (0, 4, 5, 52, 100):
        trainer.current_epoch = epoch
        found.append(trainer.covariance_weight)
    assert found == pytest.approx([0, 0, 0, 4 * 47 / 95, 4])
    trainer.current_epoch, trainer.step = 5, 1
    assert trainer.covariance_weight == pytest.approx(4 / 3 / 95)
    for epochs, expected in ((1000, 50), (10, 1), (1, 1), (150, 8)):
        trainer.num_epochs = epochs
        assert trainer.warmup_epochs == expected


def test_constant_lambda_and_given_warm_up(make_dataset):
    hyperparameters = {"covariance_schedule": "constant", "warmup_epochs": 0, "covariance_weight": 3.0}
    trainer = make_trainer(make_dataset(), nnUNetTrainerPLGCL, hyperparameters=hyperparameters)
    assert trainer.warmup_epochs == 0 and trainer.covariance_weight == 3.0


def test_teacher_and_its_head_move_by_a_thousandth_per_step(make_dataset):
    trainer = started(make_dataset(), hyperparameters={"ema_rampup": False})
    for name, student in (("teacher", trainer.network), ("teacher_head", trainer.auxiliary["head"])):
        for module, value in ((trainer.auxiliary[name], 0.0), (student, 1.0)):
            for parameter in module.parameters():
                parameter.data.fill_(value)
    trainer.teacher.update(trainer.iteration)
    for name in ("teacher", "teacher_head"):
        state = trainer.auxiliary[name].state_dict()  # every name, also of tensors that have several
        assert all(torch.allclose(v, torch.full_like(v, 0.001), atol=1e-9) for v in state.values())


def test_decay_follows_recent_networks_from_the_start(make_dataset):
    trainer = started(make_dataset(), hyperparameters={})
    for module, value in ((trainer.network, 2.0), (trainer.auxiliary["teacher"], 1.0)):
        for parameter in module.parameters():
            parameter.data.fill_(value)
    trainer.teacher.update(trainer.iteration)  # 1 / 10 of what it was
    assert all(torch.allclose(p, torch.full_like(p, 1.9)) for p in trainer.auxiliary["teacher"].parameters())


# ---- reductions


def test_without_both_terms_it_is_nnu_net(make_dataset):
    dataset = make_dataset()
    off = {"consistency_weight": 0.0, "contrast_weight": 0.0}
    trainer = started(dataset, hyperparameters=off, training={**SHORT, "optimizer": "sgd"})
    stock = make_trainer(dataset, nnUNetTrainerSupervised, training={**SHORT, "optimizer": "sgd"})
    stock.initialize()
    stock.network.load_state_dict(trainer.network.state_dict())
    for epoch in (0, 0, 1, 1):
        trainer.current_epoch = epoch
        batch = next(trainer.dataloader_train)
        mine, theirs = (t.train_step(batch)["loss"] for t in (trainer, stock))
        assert mine == pytest.approx(theirs, abs=1e-6)
    for a, b in zip(trainer.network.parameters(), stock.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_without_contrast_it_is_a_mean_teacher_with_cross_entropy(make_dataset):
    """Also after the warm-up; no patch is sampled."""
    trainer = half_way(started(make_dataset(), hyperparameters={**NOW, "contrast_weight": 0.0}))
    labeled, unlabeled = batch_of(trainer)
    before = weights(trainer.auxiliary["head"])
    terms = trainer.losses(labeled, unlabeled)
    assert terms["contrast"].item() == 0.0 and not trainer.auxiliary["memory"].counts.any()
    outputs, (student, *_) = trainer.forward_joint(labeled.image, unlabeled.strong)
    target = trainer.auxiliary["teacher"](unlabeled.weak).softmax(1)
    error = F.cross_entropy(student, target, reduction="none")[:, None]
    assert terms["consistency"].item() == pytest.approx(0.25 * error[unlabeled.valid].mean().item(), rel=1e-5)
    assert terms["supervised"].item() == pytest.approx(trainer.loss(outputs, labeled.target).item(), rel=1e-5)
    trainer.train_step(next(trainer.dataloader_train))
    assert same_weights(before, weights(trainer.auxiliary["head"]))


def test_warm_up_leaves_the_head_alone_and_its_last_epoch_fills_the_memory(make_dataset):
    trainer = started(make_dataset(), hyperparameters={"warmup_epochs": 2}, training={**SHORT, "num_epochs": 4})
    head, memory = weights(trainer.auxiliary["head"]), trainer.auxiliary["memory"]
    for epoch, filled in ((0, False), (1, True)):
        trainer.current_epoch = epoch
        labeled, unlabeled = batch_of(trainer)
        trainer.step, trainer.monitor = 0, Monitor(trainer.device, trainer.targets)
        terms = trainer.losses(labeled, unlabeled)
        assert 0 <= trainer.monitor.epoch_means()["purity"] <= 1
        assert terms["contrast"].item() == 0.0 and not terms["contrast"].requires_grad
        trainer.train_step(next(trainer.dataloader_train))
        assert same_weights(head, weights(trainer.auxiliary["head"]))
        assert (memory.counts.sum() > 0) == filled
    trainer.current_epoch = 2
    trainer.train_step(next(trainer.dataloader_train))
    assert not same_weights(head, weights(trainer.auxiliary["head"]))


def test_cross_entropy_alone_by_option(make_dataset):
    trainer = started(make_dataset(), hyperparameters={"supervised_loss": "ce"})
    labeled, unlabeled = batch_of(trainer)
    outputs, _ = trainer.forward_joint(labeled.image, unlabeled.strong)
    factors = trainer.loss.weight_factors
    expected = sum(
        w * F.cross_entropy(o, t[:, 0].long()) for w, o, t in zip(factors, outputs, labeled.target, strict=True)
    )
    assert trainer.losses(labeled, unlabeled)["supervised"].item() == pytest.approx(expected.item(), rel=1e-5)


# ---- options


def test_keys_by_the_student_are_the_detached_queries(make_dataset):
    trainer = half_way(started(make_dataset(), hyperparameters={**NOW, "key_encoder": "student"}))
    labeled, unlabeled = batch_of(trainer)
    patches = trainer.sample_patches(labeled, unlabeled, trainer.auxiliary["teacher"](unlabeled.weak))
    for parameter in trainer.auxiliary["teacher_head"].parameters():
        parameter.data.fill_(math.nan)
    trainer.contrast(patches)
    queries = trainer.embed(trainer.network, trainer.auxiliary["head"], patches)
    memory = trainer.auxiliary["memory"]
    for k in range(3):
        kept = queries[patches.valid & (patches.classes == k)]
        torch.testing.assert_close(memory.keys[k, : len(kept)], kept.detach())


def test_anchors_alone_as_queries(make_dataset):
    """The head normalises over all patches all the same: statistics of one patch per class would be none."""
    trainer = half_way(started(make_dataset(), hyperparameters={**NOW, "key_encoder": "student"}))
    labeled, unlabeled = batch_of(trainer)
    patches = trainer.sample_patches(labeled, unlabeled, trainer.auxiliary["teacher"](unlabeled.weak))
    memory, asked = trainer.auxiliary["memory"], []
    queries = trainer.embed(trainer.network, trainer.auxiliary["head"], patches)
    for choice, step in (("all", 1), ("anchor", 21)):
        trainer.hyperparameters = replace(trainer.hyperparameters, queries=choice)
        memory.load_state_dict({"keys": torch.zeros_like(memory.keys), "pushed": torch.zeros_like(memory.pushed)})
        asked.append(trainer.contrast(patches).item())
        assert memory.counts.sum() == patches.valid.sum()
        zeta = 4096 / (usable := memory.counts >= 2).sum().item()
        some, classes = queries[::step], patches.classes[::step]
        each = gaussian_info_nce(some, classes, *memory.statistics(), usable, 0.2, 2.0, zeta)
        assert asked[-1] == pytest.approx(each[patches.valid[::step]].mean().item(), rel=1e-5)
    assert asked[0] != pytest.approx(asked[1], rel=1e-3)


def test_confidence_by_the_student(make_dataset):
    chosen = {}
    dataset = make_dataset()
    for source in ("teacher", "student"):
        trainer = started(dataset, hyperparameters={**NOW, "confidence_source": source})
        labeled, unlabeled = batch_of(trainer)
        for layer in trainer.network.decoder.seg_layers:
            layer.weight.data.zero_()
            layer.bias.data.copy_(torch.tensor([0.0, 0.0, 50.0]))  # class 2 everywhere
        labeled.target[0][:] = 0
        patches = trainer.sample_patches(labeled, unlabeled, torch.zeros(2, 3, 16, 16, 16))
        chosen[source] = patches.valid.view(3, 21).any(1).tolist()
    assert chosen == {"teacher": [True, False, False], "student": [True, False, True]}


def test_monitors(make_dataset):
    trainer = started(make_dataset(), hyperparameters={**NOW, "embedding_size": 16})
    trainer.monitor = Monitor(trainer.device, trainer.targets)
    trainer.train_step(next(trainer.dataloader_train))
    means = trainer.monitor.epoch_means()
    memory = trainer.auxiliary["memory"]
    assert memory.keys.shape == (3, 64 + 1, 16)
    assert [means[f"count_keys_{k}"] for k in range(3)] == memory.counts.tolist()
    statistics = memory.statistics()[0]
    assert [means[f"mean_norm_{k}"] for k in range(3)] == pytest.approx(statistics.norm(dim=1).tolist())
    assert -1 <= means["mean_cosine"] <= 1 and 0 <= means["purity"] <= 1
    number = [means[f"count_candidates_{k}"] for k in range(3)]
    assert sum(number) == means["count_candidates"] > 0
    taken = [means[f"all_taken_{k}"] for k in range(3)]
    assert [t for t, n in zip(taken, number, strict=True) if n >= 2] == [float(n <= 21) for n in number if n >= 2]
    assert means["weight_covariance"] == 0.0 and means["weight_contrast"] == pytest.approx(0.2)
    assert means["loss_contrast"] > 0


def test_embeddings_that_are_all_alike_are_warned_about(make_dataset):
    """Also where the weight of the covariances lifts the loss itself."""
    trainer = half_way(started(make_dataset()))
    for alike in (False, True):
        if alike:
            for name in ("head", "teacher_head"):
                trainer.auxiliary[name].out_norm.weight.data.zero_()
                trainer.auxiliary[name].out_norm.bias.data.fill_(1.0)
        memory = trainer.auxiliary["memory"]
        memory.load_state_dict({"keys": torch.zeros_like(memory.keys), "pushed": torch.zeros_like(memory.pushed)})
        trainer.step, trainer.monitor = 0, Monitor(trainer.device, trainer.targets)
        trainer.train_step(next(trainer.dataloader_train))
        told: list[tuple[str, ...]] = []
        found = trainer.monitor.epoch_means()["contrast_collapse"]
        Concerns(lambda *words, told=told: told.append(words)).consider({"contrast_collapse": [found]}, progress=0.5)
        assert [words[1].startswith("The contrast is within 0.5%") for words in told] == [True] * alike


def test_a_class_whose_similarity_chooses_nothing_is_seen():
    monitor = Monitor(torch.device("cpu"))
    for numbers in ([1, 2, 21, 22], [0, 30, 2, 22]):
        observe_candidates(monitor, torch.tensor(numbers), neighbours=20)
    means = monitor.epoch_means()
    assert [means[f"count_candidates_{k}"] for k in range(4)] == [0.5, 16, 11.5, 22]
    assert math.isnan(means["all_taken_0"]) and [means[f"all_taken_{k}"] for k in (1, 2, 3)] == [0.5, 1, 0]
