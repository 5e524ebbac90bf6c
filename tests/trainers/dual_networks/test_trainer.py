"""What one step of Dual Networks does: who learns from which term, which values are right, what does not count."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nnunet_ssl.architectures.dual_networks import DualNet, DualOutput
from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.losses.consistency import cosine_consistency, uncertainty_rectified_cross_entropy
from nnunet_ssl.losses.prototypes import prototype_contrast
from nnunet_ssl.losses.pseudo_label import decide, entropy_filtered_pseudo_label, masked_cross_entropy
from nnunet_ssl.losses.regions import as_two_classes
from nnunet_ssl.losses.squared_dice import squared_dice
from nnunet_ssl.trainers.dual_networks.trainer import nnUNetTrainerDualNetworks
from nnunet_ssl.training.network import unwrap
from tests.live_memory import LiveMemory
from tests.running import SHORT, make_trainer, weights

STANDING_STILL = {**SHORT, "initial_lr": 0.0}
CONSTANT = {"rampup_fraction": 0.0, "contrast_fraction": 1.0, "contrast_samples": 10**5}  # no ramp, no drawing
REGIONS = {"labels": {"background": 0, "whole": (1, 2), "box": 2}, "regions_class_order": (1, 2)}
REGIONS_IGNORE = {"labels": {**REGIONS["labels"], "ignore": 3}, "regions_class_order": (1, 2)}
TERMS = (
    "supervised_student",
    "supervised_teacher",
    "consistency",
    "uncertainty",
    "pseudo_label_student",
    "pseudo_label_teacher",
    "contrast",
)
DISAGREEMENT = ("disagreement_student", "disagreement_teacher")


def started(dataset: Path, configuration: str = "3d_fullres", **options: Any) -> nnUNetTrainerDualNetworks:
    trainer = make_trainer(dataset, nnUNetTrainerDualNetworks, configuration, **options)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    return trainer


def batch_of(trainer: nnUNetTrainerDualNetworks) -> tuple[LabeledBatch, UnlabeledBatch]:
    labeled, unlabeled = trainer.split_batch(next(trainer.dataloader_train))
    labeled.valid.fill_(True)
    unlabeled.valid.fill_(True)
    return labeled, unlabeled


def random_output(labeled: LabeledBatch, unlabeled: UnlabeledBatch, channels: int = 3) -> DualOutput:
    """Logits and features that are leaves with a gradient, at two resolutions."""
    generator = torch.Generator().manual_seed(0)
    images = torch.cat((labeled.image, unlabeled.weak))

    def leaf(width: int = channels, factor: int = 1) -> Tensor:
        size = [s // factor for s in images.shape[2:]]
        return torch.randn(len(images), width, *size, generator=generator).requires_grad_()

    return DualOutput([leaf(), leaf(factor=2)], [leaf(), leaf(factor=2)], leaf(4), leaf(4))


def terms_of(trainer: nnUNetTrainerDualNetworks, labeled: LabeledBatch, unlabeled: UnlabeledBatch, out: DualOutput):
    trainer.forward = lambda *_: out
    return trainer.losses(labeled, unlabeled)


def gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, leaf, retain_graph=True, allow_unused=True)
    return torch.zeros_like(leaf) if found is None else found


# ---- who learns from what


@pytest.mark.parametrize("configuration, scope", [("3d_fullres", "voxels"), ("2d", "class")])
def test_terms_are_the_losses_with_their_weights(make_dataset, configuration, scope):
    switches = {**CONSTANT, "consistency_weight": 2.0, "uncertainty_weight": 3.0, "pseudo_label_weight": 5.0,
                "temperature": 0.7, "percentile": 60.0, "contrast_weight": 7.0, "percentile_scope": scope}  # fmt: skip
    trainer = started(make_dataset(), configuration, hyperparameters=switches)
    labeled, unlabeled = batch_of(trainer)
    out = random_output(labeled, unlabeled)
    terms = terms_of(trainer, labeled, unlabeled, out)
    student, teacher = out.student[0], out.teacher[0]
    u_student, u_teacher = student[2:], teacher[2:]
    labels, valid = entropy_filtered_pseudo_label(u_student, u_teacher, 60.0, scope=scope)
    own = decide(u_student, 60.0).label
    contrast = prototype_contrast(
        out.student_features[2:], torch.where(valid, labels, -1), torch.where(valid, -1, own), 3, 1.0, 10**5
    )
    expected = {
        "supervised_student": trainer.loss([z[:2] for z in out.student], labeled.target),
        "supervised_teacher": trainer.loss([z[:2] for z in out.teacher], labeled.target),
        "consistency": 2 * cosine_consistency(student, teacher),
        "uncertainty": 3 * uncertainty_rectified_cross_entropy(student, teacher, 0.7),
        "pseudo_label_student": 5 * masked_cross_entropy(u_student, labels, valid),
        "pseudo_label_teacher": 5 * masked_cross_entropy(u_teacher, labels, valid),
        "contrast": 7 * math.exp(-5) * contrast,
    }
    assert list(terms) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, msg=name)
    hard = started(trainer_dataset(trainer), configuration,
                   hyperparameters={"hard_target": True, "detach_uncertainty": True})  # fmt: skip
    value = terms_of(hard, labeled, unlabeled, out)["uncertainty"]
    reference = uncertainty_rectified_cross_entropy(student, teacher, hard_target=True, detach_weight=True)
    torch.testing.assert_close(value, reference)
    torch.testing.assert_close(gradient(value, student), gradient(reference, student))


def trainer_dataset(trainer: nnUNetTrainerDualNetworks) -> Path:
    return Path(trainer.preprocessed_dataset_folder_base)


def test_regions_are_problems_of_two_classes(make_dataset):
    trainer = started(make_dataset(**REGIONS), hyperparameters={**CONSTANT, "percentile_scope": "voxels"})
    labeled, unlabeled = batch_of(trainer)
    out = random_output(labeled, unlabeled, 2)
    terms = terms_of(trainer, labeled, unlabeled, out)
    student, teacher = out.student[0], out.teacher[0]
    a, b = as_two_classes(student), as_two_classes(teacher)
    torch.testing.assert_close(terms["consistency"], cosine_consistency(a, b))
    torch.testing.assert_close(terms["uncertainty"], uncertainty_rectified_cross_entropy(a, b))
    p, q = student[2:].sigmoid(), teacher[2:].sigmoid()
    reliable = []
    for x in (p, q):
        uncertainty = -(x * x.log() + (1 - x) * (1 - x).log()).mean(1)
        reliable.append(uncertainty < uncertainty.quantile(0.8))
    first, second = (r.unsqueeze(1) for r in reliable)
    valid = reliable[0] | reliable[1]
    inside = ((p > 0.5) & (first | ~second)) | ((q > 0.5) & (second | ~first))  # of the only reliable one, or of either
    error = torch.nn.functional.binary_cross_entropy_with_logits(student[2:], inside.float(), reduction="none")
    expected = (error.mean(1) * valid).sum() / valid.sum()
    torch.testing.assert_close(terms["pseudo_label_student"], expected)
    contrasts = [
        prototype_contrast(
            out.student_features[2:],
            torch.where(valid, inside[:, r].long(), -1),
            torch.where(valid, -1, (p[:, r] > 0.5).long()),
            2,
            1.0,
            10**5,
        )
        for r in (0, 1)
    ]
    torch.testing.assert_close(terms["contrast"], 0.1 * math.exp(-5) * sum(contrasts) / 2)


def test_values_of_undecided_networks(make_dataset):
    trainer = started(make_dataset(), hyperparameters={**CONSTANT, "percentile_scope": "class"})
    net = trainer.network
    for head in (*net.student.decoder.seg_layers, *net.teacher.decoder.seg_layers):
        for parameter in head.parameters():
            parameter.data.zero_()
    calls, forward = [], trainer.forward
    trainer.forward = lambda *arguments: calls.append(len(arguments)) or forward(*arguments)
    terms = trainer.losses(*batch_of(trainer))
    assert calls == [3]  # one forward of both networks and both streams
    assert terms["consistency"].item() == 0.0
    assert terms["uncertainty"].item() == pytest.approx(math.log(3), rel=1e-6)
    # the entropy is constant: all voxels, of background, are within its percentile, and none are strictly below it
    assert terms["pseudo_label_student"].item() == pytest.approx(math.log(3), rel=1e-6)
    assert terms["contrast"].item() == 0.0
    trainer.hyperparameters = replace(trainer.hyperparameters, percentile_scope="voxels")
    terms = trainer.losses(*batch_of(trainer))
    assert terms["pseudo_label_student"].item() == terms["contrast"].item() == 0.0
    sum(terms.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


# ---- schedules


@pytest.mark.parametrize("agreement", [True, False])
def test_weights_follow_the_progress(make_dataset, agreement):
    training, hyperparameters = {**SHORT, "num_epochs": 4}, {"ramp_agreement": agreement}
    trainer = started(make_dataset(), training=training, hyperparameters=hyperparameters)
    labeled, unlabeled = batch_of(trainer)
    out, found = random_output(labeled, unlabeled), []
    for trainer.current_epoch in range(5):
        found.append(terms_of(trainer, labeled, unlabeled, out).weights)
    ramp = [math.exp(-5 * (1 - min(1, t / 0.4)) ** 2) for t in (0, 0.25, 0.5, 0.75, 1)]
    contrast = [6.738e-4, 6.005e-3, 2.865e-2, 7.316e-2, 0.1]
    rising = dict.fromkeys(("pseudo_label_student", "pseudo_label_teacher"), ramp)
    agreeing = dict.fromkeys(("consistency", "uncertainty"), ramp if agreement else [1.0] * 5)
    for name, expected in {"contrast": contrast, **rising, **agreeing}.items():
        assert [weights[name] for weights in found] == pytest.approx(expected, rel=2e-4), name
    assert 0.8 - 0.01 <= trainer.monitor.epoch_means()["reliable"] <= 0.96 + 0.01


# ---- options


def test_who_labels_whom(make_dataset):
    dataset = make_dataset()
    found = {}
    for rule in ("union", "own", "cross"):
        trainer = started(dataset, hyperparameters={**CONSTANT, "pseudo_label_rule": rule})
        labeled, unlabeled = batch_of(trainer)
        out = random_output(labeled, unlabeled)
        found[rule] = terms_of(trainer, labeled, unlabeled, out)
    z = [out.student[0][2:], out.teacher[0][2:]]
    mine = [decide(x) for x in z]
    for rule, sources in (("own", mine), ("cross", mine[::-1])):
        for name, logits, source in zip(("student", "teacher"), z, sources, strict=True):
            expected = masked_cross_entropy(logits, source.label, source.reliable)
            torch.testing.assert_close(found[rule][f"pseudo_label_{name}"], expected)
    assert len({terms["pseudo_label_student"].item() for terms in found.values()}) == 3


@pytest.mark.parametrize("weaker", ["student", "teacher"])
@pytest.mark.parametrize("recipe", [{}, REGIONS], ids=["classes", "regions"])
def test_dynamic_roles_take_the_features_of_the_weaker_network(make_dataset, weaker, recipe):
    trainer = started(make_dataset(**recipe), hyperparameters={**CONSTANT, "dynamic_roles": True})
    labeled, unlabeled = batch_of(trainer)
    out = random_output(labeled, unlabeled, trainer.label_manager.num_segmentation_heads)
    good = out.teacher[0] if weaker == "student" else out.student[0]
    target = labeled.target[0]
    with torch.no_grad():
        truth = target.float() if recipe else torch.cat([(target == c).float() for c in range(3)], 1)
        good[:2] = 20 * truth - 10
    if not recipe:
        losses = [squared_dice(z[0][:2], target) for z in (out.student, out.teacher)]
        assert (losses[0] > losses[1]).item() == (weaker == "student")
    contrast = terms_of(trainer, labeled, unlabeled, out)["contrast"]
    gradients = [gradient(contrast, f).any().item() for f in (out.student_features, out.teacher_features)]
    assert gradients == [weaker == "student", weaker == "teacher"]


def test_terms_without_weight_are_left_out(make_dataset):
    off = {f"{name}_weight": 0.0 for name in ("consistency", "uncertainty", "pseudo_label", "contrast")}
    trainer = started(make_dataset(), hyperparameters=off)
    assert set(trainer.losses(*batch_of(trainer))) == {"supervised_student", "supervised_teacher"}
    trainer = started(trainer_dataset(trainer), hyperparameters={**off, "contrast_weight": 0.1})
    assert set(trainer.losses(*batch_of(trainer))) == {"supervised_student", "supervised_teacher", "contrast"}


# ---- voxels that do not count


@pytest.mark.parametrize("recipe", [{}, REGIONS], ids=["classes", "regions"])
def test_padding_teaches_nothing(make_dataset, recipe):
    trainer = started(make_dataset(**recipe), hyperparameters=CONSTANT)
    labeled, unlabeled = batch_of(trainer)
    unlabeled.valid[:, :, :5] = labeled.valid[:, :, :5] = False
    out = random_output(labeled, unlabeled, trainer.label_manager.num_segmentation_heads)
    terms = terms_of(trainer, labeled, unlabeled, out)
    names = [name for name in TERMS if "supervised" not in name]
    torch.stack([terms[name] for name in names]).sum().backward()
    for leaf in (out.student[0], out.teacher[0], out.student_features):
        assert not leaf.grad[:, :, :5].any() and leaf.grad[2:, :, 5:].any()
    with torch.no_grad():
        for leaf in (out.student[0], out.teacher[0], out.student_features):
            leaf[:, :, :5] = 100 * torch.randn_like(leaf[:, :, :5])
    again = trainer.losses(labeled, unlabeled)
    for name in names:
        torch.testing.assert_close(again[name], terms[name], msg=name)


def test_no_valid_voxel_at_all_is_finite(make_dataset):
    trainer = started(make_dataset(), hyperparameters=CONSTANT)
    labeled, unlabeled = batch_of(trainer)
    unlabeled.valid.fill_(False)
    out = random_output(labeled, unlabeled)
    terms = terms_of(trainer, labeled, unlabeled, out)
    assert terms["pseudo_label_student"].item() == terms["contrast"].item() == 0.0
    torch.testing.assert_close(terms["consistency"], cosine_consistency(out.student[0][:2], out.teacher[0][:2]))
    sum(terms.values()).backward()
    assert out.student[0].grad.isfinite().all() and not out.student[0].grad[2:].any()


@pytest.mark.parametrize(
    "recipe",
    [{"labels": {"background": 0, "ball": 1, "box": 2, "ignore": 3}}, REGIONS_IGNORE],
    ids=["classes", "regions"],
)
def test_ignored_voxels_teach_nothing_about_labels(make_dataset, recipe):
    switches = {"disagreement_weight": 0.5, "disagreement_threshold": 0.4}
    trainer = started(make_dataset(**recipe), hyperparameters=switches)
    labeled, unlabeled = batch_of(trainer)
    target = labeled.target[0]
    if recipe is REGIONS_IGNORE:
        assert target.shape[1] == 3
        target[:, :, :2] = 0
        target[:, 2, :2] = 1
        ignored = target[:, 2:] == 1
    else:
        target[:, :, :2] = 3
        ignored = target == 3
    channels = trainer.label_manager.num_segmentation_heads
    out = random_output(labeled, unlabeled, channels)
    terms = terms_of(trainer, labeled, unlabeled, out)
    for name in ("supervised_student", "disagreement_student"):
        found = gradient(terms[name], out.student[0])[:2]
        assert not found[ignored.expand_as(found)].any() and found[~ignored.expand_as(found)].any(), name
    for name in ("consistency", "uncertainty"):  # need no labels
        found = gradient(terms[name], out.student[0])[:2]
        assert found[ignored.expand_as(found)].any()


# ---- what the filter lets through


@pytest.mark.parametrize("recipe", [{}, REGIONS], ids=["classes", "regions"])
def test_no_predicted_class_is_shut_out(make_dataset, recipe):
    """Foreground fills 2 % of the patch and is what both networks are least sure of."""
    kept, dataset = {}, make_dataset(**recipe)
    for scope in ("voxels", "class"):
        trainer = started(dataset, hyperparameters={**CONSTANT, "percentile_scope": scope})
        labeled, unlabeled = batch_of(trainer)
        out = random_output(labeled, unlabeled, trainer.label_manager.num_segmentation_heads)
        rare = torch.rand(out.student[0][:, :1].shape, generator=torch.Generator().manual_seed(0)) < 0.01
        rare = torch.cat((rare, rare.flip(2)), 1)
        with torch.no_grad():
            for z in (out.student[0], out.teacher[0]):
                noise = z[:, -2:].clone()
                z[:, -2:] = torch.where(rare, 0.5, -9.0) + 0.1 * noise
                if not recipe:
                    z[:, 0] *= 0.1
        terms_of(trainer, labeled, unlabeled, out)
        means = trainer.monitor.epoch_means()
        kept[scope] = {k: v for k, v in means.items() if k.startswith("kept_") and k != "kept_0"}
        assert means["reliable"] > 0.75
    assert len(kept["class"]) == 2 and min(kept["class"].values()) > 0.5
    assert max(kept["voxels"].values()) < 0.1


@pytest.mark.parametrize("classes, repelled", [(4, True), (8, False)])
def test_many_classes_are_imitated_with_detached_weights(make_dataset, classes, repelled):
    trainer = started(make_dataset(), hyperparameters=CONSTANT)
    student, teacher = (torch.randn(2, classes, 4, 4, 4).requires_grad_() for _ in range(2))
    found = trainer._agreement_terms(student, teacher, torch.ones(2, 1, 4, 4, 4, dtype=torch.bool))["uncertainty"]
    expected = uncertainty_rectified_cross_entropy(student, teacher, detach_weight=not repelled)
    assert torch.equal(gradient(found, student), gradient(expected, student))


# ---- the two networks


class Twins(nnUNetTrainerDualNetworks):
    """Two networks of one architecture with equal weights."""

    @classmethod
    def build_network_architecture(cls, plans_manager: Any, *arguments: Any) -> DualNet:
        net = super().build_network_architecture(plans_manager, *arguments)
        net.student = copy.deepcopy(net.teacher)
        return net


@pytest.mark.parametrize("uncertainty", [0.0, 1.0])
def test_twins_stay_equal_until_one_imitates_the_other(make_dataset, uncertainty):
    # the contrast, too, updates the student alone
    switches = {"uncertainty_weight": uncertainty, "contrast_weight": 0.0, "rampup_fraction": 0.0}
    trainer = make_trainer(make_dataset(), Twins, hyperparameters=switches)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    batch = next(trainer.dataloader_train)
    distances = []
    for _ in range(3):
        with torch.no_grad():
            out = trainer.network(batch["data"], batch["unlabeled"]["data"])
            kl = torch.nn.functional.kl_div(
                out.student[0].log_softmax(1), out.teacher[0].log_softmax(1), log_target=True, reduction="sum"
            )
            distances.append((cosine_consistency(out.student[0], out.teacher[0]).item(), kl.item()))
        trainer.train_step(batch)
    assert distances[0] == (0.0, 0.0)
    if uncertainty:
        assert all(reg > 0 and kl > 0 for reg, kl in distances[1:])
    else:
        assert distances == [(0.0, 0.0)] * 3
        assert all(map(torch.equal, weights(trainer.network.student), weights(trainer.network.teacher)))


def test_networks_are_clipped_apart(make_dataset):
    trainer = make_trainer(make_dataset(preprocess=False), nnUNetTrainerDualNetworks)
    trainer.initialize()
    networks = (trainer.network.student, trainer.network.teacher)
    found = [[id(p) for p in group] for group in trainer.clipping_groups()]
    assert found == [[id(p) for p in network.parameters()] for network in networks]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_sequential_steps_equal_joint_ones(make_dataset, dropout):
    dataset, found = make_dataset(), []
    for sequential in (False, True):
        switches = {**CONSTANT, "sequential": sequential, "channel_dropout": dropout}
        trainer = started(dataset, hyperparameters=switches, training=STANDING_STILL)
        assert unwrap(trainer.network).sequential is sequential
        torch.manual_seed(0)
        loss = trainer.train_step(next(trainer.dataloader_train))["loss"]
        found.append((loss, [p.grad for p in trainer.network.parameters()]))
    (loss, gradients), (other_loss, other_gradients) = found
    assert loss == pytest.approx(other_loss, rel=1e-6)
    for a, b in zip(gradients, other_gradients, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_a_sequential_step_takes_three_fifths_of_the_memory(make_dataset):
    peaks = []
    dataset = make_dataset()
    for sequential in (False, True):
        trainer = make_trainer(dataset, Wide, hyperparameters={"sequential": sequential})
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        labeled, unlabeled = batch_of(trainer)
        trainer.step = 1  # monitors rest
        for parameter in trainer.network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        with LiveMemory() as memory:
            torch.stack(list(trainer.losses(labeled, unlabeled).values())).sum().backward()
        peaks.append(memory.peak)
    assert peaks[1] <= 0.6 * peaks[0]


class Wide(nnUNetTrainerDualNetworks):
    """Half the width of nnU-Net's networks, two convolutions per stage."""

    @classmethod
    def build_network_architecture(cls, plans_manager: Any, configuration_manager: Any, *arguments: Any) -> DualNet:
        kwargs = configuration_manager.configuration["architecture"]["arch_kwargs"]
        kwargs |= {"features_per_stage": [16, 32, 64], "n_conv_per_stage": [2] * 3, "n_conv_per_stage_decoder": [2] * 2}
        return super().build_network_architecture(plans_manager, configuration_manager, *arguments)
