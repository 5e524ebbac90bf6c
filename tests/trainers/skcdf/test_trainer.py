"""What one step of SKCDF does: who learns from which term, what moves between the branches, which values are right."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_ssl.architectures.skcdf import SKCDFOutput
from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.losses.balanced import balanced_dice_ce, dice_ce
from nnunet_ssl.trainers.skcdf.trainer import SKCDFHyperparameters, nnUNetTrainerSKCDF
from nnunet_ssl.trainers.skcdf.transfer import TRANSFER_ORDERS
from nnunet_ssl.training.deep_supervision import resize_to
from tests.architectures.test_skcdf import groups
from tests.running import FOLD, SHORT, make_trainer, same_weights, weights, write_split
from tests.tiny import Tiny, case_arrays
from tests.trainers.inside import batch_of

STANDING_STILL = {**SHORT, "initial_lr": 0.0}
IGNORE = {"background": 0, "ball": 1, "box": 2, "ignore": 3}


def started(dataset: Path, configuration: str = "3d_fullres", **options: Any) -> nnUNetTrainerSKCDF:
    trainer = make_trainer(dataset, nnUNetTrainerSKCDF, configuration, **options)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    return trainer


def random_output(labeled: LabeledBatch, unlabeled: UnlabeledBatch, classes: int = 3) -> SKCDFOutput:
    """Logits that are leaves with a gradient, at two resolutions where the network has two."""
    generator = torch.Generator().manual_seed(0)

    def leaf(images: torch.Tensor, factor: int = 1) -> torch.Tensor:
        size = [s // factor for s in images.shape[2:]]
        return torch.randn(len(images), classes, *size, generator=generator).requires_grad_()

    x, u = labeled.image, unlabeled.image
    return SKCDFOutput([leaf(x), leaf(x, 2)], leaf(x), leaf(u), leaf(u), [leaf(u), leaf(u, 2)], leaf(u))


def both_weigh(trainer: nnUNetTrainerSKCDF) -> nnUNetTrainerSKCDF:
    """The tiny network has two resolutions, and nnU-Net gives the coarsest one weight 0."""
    trainer.loss.weight_factors = (0.75, 0.25)
    return trainer


# ---- who learns from what


def test_pseudo_labels_and_masks_carry_no_gradient(make_dataset):
    trainer = both_weigh(started(make_dataset()))
    labeled, unlabeled = batch_of(trainer)
    out = random_output(labeled, unlabeled)
    trainer.forward = lambda *_: out
    sum(trainer.losses(labeled, unlabeled).values()).backward()
    assert out.guided_main.grad is None and out.guided_auxiliary.grad is None
    assert all(x.grad is not None for x in (*out.labeled_main, *out.unlabeled_main))
    assert out.labeled_auxiliary.grad is not None and out.unlabeled_auxiliary.grad is not None


@pytest.mark.parametrize("offset", [True, False])
def test_values_of_the_terms(make_dataset, monkeypatch, offset):
    """Half-way. Each head of the labelled decoder labels its own head of the other, the balanced one thinned out."""
    trainer = both_weigh(started(make_dataset(), hyperparameters={"auxiliary_dice_offset": offset}))
    labeled, unlabeled = batch_of(trainer)
    unlabeled.valid[:, :, :4] = False
    out = random_output(labeled, unlabeled)
    trainer.forward = lambda *_: out
    masks = [torch.rand(len(x), 1, *x.shape[2:]) < 0.3 for x in (labeled.image, unlabeled.image)]
    seen = []

    def given(target, probability, generator=None, valid=None):
        seen.append((target, probability, valid))
        return masks[len(seen) - 1]

    monkeypatch.setattr("nnunet_ssl.trainers.skcdf.trainer.sample_keep_mask", given)
    trainer.step = 3  # half of the training
    terms = trainer.losses(labeled, unlabeled)
    pseudo, balanced = (g.argmax(1, keepdim=True) for g in (out.guided_main, out.guided_auxiliary))
    assert not torch.equal(pseudo, balanced)
    (label, probability, _), (thinned, scheduled, valid) = seen
    assert torch.equal(label, labeled.target[0]) and torch.equal(thinned, balanced) and valid is unlabeled.valid
    assert torch.equal(probability, trainer.keep_probability())
    torch.testing.assert_close(scheduled, 1 - 0.5 * (1 - probability))

    def over_resolutions(outputs: list[torch.Tensor], target: Any, valid: torch.Tensor | None) -> torch.Tensor:
        targets = target if isinstance(target, list) else resize_to(target, outputs)
        resolutions = zip((0.75, 0.25), outputs, targets, resize_to(valid, outputs), strict=False)
        return sum(w * dice_ce(o, t, valid=v) for w, o, t, v in resolutions)

    def on_kept(logits: torch.Tensor, *voxels: torch.Tensor | None) -> torch.Tensor:
        return balanced_dice_ce(logits, *voxels, dice_offset=offset)

    weight = 10 * math.exp(-5 / 4)
    expected = {
        "supervised": over_resolutions(out.labeled_main, labeled.target, None),
        "unsupervised": weight * over_resolutions(out.unlabeled_main, pseudo, unlabeled.valid),
        "supervised_balanced": on_kept(out.labeled_auxiliary, label, masks[0], None),
        "unsupervised_balanced": weight * on_kept(out.unlabeled_auxiliary, balanced, masks[1], unlabeled.valid),
    }
    assert list(terms) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, msg=name)


def test_both_streams_are_augmented_alike(make_dataset):
    trainer = started(make_dataset())
    loader = trainer.dataloader_train.data_loader
    pipelines = [stream.transforms.transforms.transforms for stream in (loader.unlabeled, loader.labeled)]
    of_labels = ("RemoveLabelTransform", "DownsampleSegForDSTransform", "NamePadding")
    own, theirs = ([t for t in steps if type(t).__name__ not in of_labels] for steps in pipelines)
    assert len(own) == len(theirs) > 5 and all(a is b for a, b in zip(own, theirs, strict=True))


# ---- schedule


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, [0.0674, 0.6005, 2.8650, 7.3162]),
        ({"unsupervised_weight": 2.0, "rampup_fraction": 0.5, "balanced_heads": False},
         [2 * math.exp(-5), 2 * math.exp(-1.25), 2, 2]),
    ],
    ids=["published", "settings"],
)  # fmt: skip
def test_weight_ramps_up_as_published(make_dataset, options, expected):
    trainer = started(make_dataset(), training={**SHORT, "num_epochs": 4}, hyperparameters=options)
    batch, found = batch_of(trainer), []
    for trainer.current_epoch in range(4):
        found.append(trainer.losses(*batch).weights)
    names = {"unsupervised"} if options else {"unsupervised", "unsupervised_balanced"}
    for name in names:
        assert [weights[name] for weights in found] == pytest.approx(expected, abs=5e-5)
    assert set(found[0]) == names and set(trainer.losses(*batch)) == names | {n[2:] for n in names}


# ---- knowledge transfer


@pytest.mark.parametrize(
    "switches, order",
    [
        ({}, "H->D->H"),
        *(({"transfer_order": order}, order) for order in TRANSFER_ORDERS),
        ({"transfer_order": "none"}, None),
        ({"balanced_heads": False}, "D"),
        ({"balanced_heads": False, "transfer_order": "none"}, None),
        ({"decoupling": False}, "H->D"),
        ({"decoupling": False, "transfer_order": "H->H->D"}, "H->D"),
        ({"decoupling": False, "transfer_order": "D"}, None),
        ({"decoupling": False, "balanced_heads": False}, None),
        ({"complementarity": False}, "H->D->H"),
    ],
)
def test_order_in_force(switches, order):
    assert SKCDFHyperparameters(**switches).order_in_force == order


@pytest.mark.parametrize("order, weight_of_la", [("H->D->H", 0.99 * 0.01**2 + 0.01**2), ("D->H->H", 0.01**2)])
def test_the_predicting_head_after_one_step(make_dataset, order, weight_of_la):
    trainer = started(make_dataset(), training=STANDING_STILL, hyperparameters={"transfer_order": order})
    net, kept = trainer.network, 0.99
    heads = [h for d in (net.labeled_decoder, net.unlabeled_decoder) for h in (d.main_head, d.auxiliary_head)]
    bodies = [groups(net)[f"{side} decoder"] for side in ("unlabeled", "labeled")]
    moved = [kept * u.detach() + 0.01 * x.detach() for u, x in zip(*bodies, strict=True)]
    lm, la, um, ua = (h.weight.detach().clone() for h in heads)
    trainer.train_step(next(trainer.dataloader_train))
    of_lm = kept * 0.01 if order == "D->H->H" else kept**2 * 0.01
    expected = kept**2 * um + of_lm * lm + weight_of_la * la + kept * 0.01 * ua
    torch.testing.assert_close(heads[2].weight.detach(), expected, atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(heads[0].weight.detach(), kept * lm + 0.01 * la, atol=1e-7, rtol=1e-6)
    assert torch.equal(heads[1].weight, la)
    torch.testing.assert_close([p.detach() for p in bodies[0]], moved)


def test_transfer_leaves_the_optimiser_alone_and_moves_one_decoder_and_the_heads(make_dataset):
    trainer = started(make_dataset())
    trainer.train_step(next(trainer.dataloader_train))
    for parameter in trainer.network.parameters():  # biases start equal
        parameter.data += 0.1 * torch.randn_like(parameter)
    state = [{k: torch.as_tensor(v).clone() for k, v in s.items()} for s in trainer.optimizer.state.values()]
    assert state
    parts = groups(trainer.network)
    before = {name: [p.detach().clone() for p in members] for name, members in parts.items()}
    trainer.transfer_knowledge()
    moved = {
        name: sum(not torch.equal(p, old) for p, old in zip(members, before[name], strict=True))
        for name, members in parts.items()
    }
    whole = ("unlabeled decoder", "unlabeled main", "unlabeled auxiliary")
    assert moved == {name: len(parts[name]) if name in whole else 0 for name in parts} | {"labeled main": 2}
    for old, new in zip(state, trainer.optimizer.state.values(), strict=True):
        assert all(torch.equal(value, torch.as_tensor(new[key])) for key, value in old.items())


def test_transfer_happens_before_the_forward(make_dataset):
    trainer = started(make_dataset(), training=STANDING_STILL)
    seen = []
    forward = trainer.forward

    def record(network: nn.Module, *images: torch.Tensor) -> Any:
        seen.append(weights(network))
        return forward(network, *images)

    trainer.forward = record
    start = weights(trainer.network)
    trainer.train_step(next(trainer.dataloader_train))
    assert not same_weights(start, seen[0])  # also in the first step
    assert same_weights(seen[0], weights(trainer.network))  # and not after it


@pytest.mark.parametrize(
    "switches", [{"transfer_order": "none"}, {"transfer_decay": 1.0}, {"head_transfer_decay": 1.0}]
)
def test_transfers_can_be_switched_off(make_dataset, switches):
    trainer = started(make_dataset(), training=STANDING_STILL, hyperparameters=switches)
    parts = groups(trainer.network)
    before = {name: [p.detach().clone() for p in members] for name, members in parts.items()}
    trainer.train_step(next(trainer.dataloader_train))
    moved = {name for name, members in parts.items() if not same_weights(before[name], [p.detach() for p in members])}
    only_heads_off = {"unlabeled decoder", "unlabeled main", "unlabeled auxiliary"}
    assert moved == (only_heads_off if "head_transfer_decay" in switches else set())


def test_one_decoder_takes_over_from_its_own_auxiliary_head(make_dataset):
    trainer = started(make_dataset(), training=STANDING_STILL, hyperparameters={"decoupling": False})
    decoder = trainer.network.labeled_decoder
    main, auxiliary = decoder.main_head.weight.detach().clone(), decoder.auxiliary_head.weight.detach().clone()
    before = weights(trainer.network)
    trainer.train_step(next(trainer.dataloader_train))
    torch.testing.assert_close(decoder.main_head.weight.detach(), 0.99 * main + 0.01 * auxiliary)
    moved = [not torch.equal(a, b) for a, b in zip(before, weights(trainer.network), strict=True)]
    assert sum(moved) == 1  # the biases of both heads are still zero


# ---- voxels that do not count


def test_ignored_voxels_teach_nothing(make_dataset):
    trainer = both_weigh(started(make_dataset(labels=IGNORE)))
    labeled, unlabeled = batch_of(trainer)
    for target in labeled.target:
        target[:, :, :2] = 3  # in every patch
    trainer.keep_probability = lambda label: torch.ones(3)  # the mask drops nothing else
    out = random_output(labeled, unlabeled)
    trainer.forward = lambda *_: out
    terms = trainer.losses(labeled, unlabeled)
    (terms["supervised"] + terms["supervised_balanced"]).backward()
    pairs = [*zip(out.labeled_main, labeled.target, strict=False), (out.labeled_auxiliary, labeled.target[0])]
    assert len(pairs) == 3
    for logits, target in pairs:
        ignored = (target == 3).expand_as(logits)
        assert not logits.grad[ignored].any() and logits.grad[~ignored].all()


def test_padding_teaches_nothing(make_dataset):
    trainer = both_weigh(started(make_dataset()))
    labeled, unlabeled = batch_of(trainer)
    unlabeled.valid.fill_(True)
    unlabeled.valid[:, :, :4] = False
    out = random_output(labeled, unlabeled)
    trainer.forward = lambda *_: out
    terms = trainer.losses(labeled, unlabeled)
    (terms["unsupervised"] + terms["unsupervised_balanced"]).backward()
    for logits in (*out.unlabeled_main, out.unlabeled_auxiliary):
        outside = logits.shape[2] // 4
        assert not logits.grad[:, :, :outside].any() and logits.grad[:, :, outside:].all()
    for guided in (out.guided_main, out.guided_auxiliary):
        guided.data[:, :, :4] = 100 * torch.randn_like(guided[:, :, :4])
    again = trainer.losses(labeled, unlabeled)
    assert all(torch.equal(again[name], terms[name]) for name in ("unsupervised", "unsupervised_balanced"))


@pytest.mark.parametrize("labels", [IGNORE, {"background": 0, "ball": 1, "box": 2}])
def test_classes_are_counted_in_the_labelled_cases_alone_and_without_ignored_voxels(make_dataset, labels):
    dataset = make_dataset(labels=labels)
    write_split(dataset)
    trainer = make_trainer(dataset, nnUNetTrainerSKCDF, split="n2", hyperparameters={"class_counts": "cases"})
    trainer.on_train_start()
    cases = [case_arrays(Tiny(labels=labels), int(case.split("_")[1]))[1] for case in FOLD.labeled]
    counts = np.sum([np.bincount(label.ravel(), minlength=4) for label in cases], axis=0)
    assert (counts[3] > 0) == ("ignore" in labels)
    np.testing.assert_allclose(trainer.keep_probability(), counts[:3].min() / counts[:3], rtol=1e-6)
    assert f"Voxels per class in the labelled cases: {[*map(int, counts[:3])]}" in Path(trainer.log_file).read_text()


def test_classes_are_counted_in_the_labelled_patches(make_dataset):
    trainer = started(make_dataset(labels=IGNORE))
    expected = torch.zeros(4, dtype=torch.int64)
    for _ in range(3):
        labeled, unlabeled = batch_of(trainer)
        labeled.target[0][:, :, :2] = 3  # ignored
        trainer.losses(labeled, unlabeled)
        expected += torch.bincount(labeled.target[0].long().flatten(), minlength=4)
    assert torch.equal(trainer.class_counts, expected[:3])
    torch.testing.assert_close(trainer.keep_probability(), (expected[:3].min() / expected[:3]).float())


def kept_per_class(trainer: nnUNetTrainerSKCDF, steps: int = 40) -> np.ndarray:
    """Voxels of each class that the labelled decoder's balanced head expects to see, after some steps of counting."""
    kept = np.zeros(3)
    for step in range(steps):
        label = batch_of(trainer)[0].target[0]
        probability = trainer.keep_probability(label).numpy()
        if step >= steps // 2:
            kept += probability * np.bincount(label.long().flatten().numpy(), minlength=3)
    return kept


def test_as_many_voxels_of_each_class_are_kept_although_foreground_is_oversampled(make_dataset):
    dataset = make_dataset(shape=(40, 40, 40))  # the patch is 16 x 16 x 16
    ratios = {}
    for counts in ("patches", "cases"):
        trainer = started(dataset, hyperparameters={"class_counts": counts})
        kept = kept_per_class(trainer)
        ratios[counts] = kept[1:].mean() / kept[0]
    assert 0.7 < ratios["patches"] < 1.4
    assert ratios["cases"] > 1.5 * ratios["patches"]


def test_counts_outlive_a_resume_and_an_older_training_counts_cases(make_dataset):
    dataset = make_dataset()
    first = started(dataset)
    first.train_step(next(first.dataloader_train))
    state = first.auxiliary_state()
    second = make_trainer(dataset, nnUNetTrainerSKCDF)
    second.initialize()
    second.load_auxiliary_state(state)
    assert second.class_counts.sum() == 2 * 16**3 and torch.equal(second.class_counts, first.class_counts)
    old = make_trainer(dataset, nnUNetTrainerSKCDF)
    old.initialize()
    old.load_auxiliary_state({})
    old.on_train_start()
    whole = old.class_counts.clone()
    assert whole.sum() > 2 * 16**3
    old.keep_probability(torch.zeros(1, 1, 4, 4, 4))
    assert torch.equal(old.class_counts, whole) and "class_counts" not in old.auxiliary_state()


def test_transfer_fades_with_the_learning_rate_where_asked(make_dataset):
    trainer = started(make_dataset(), hyperparameters={"transfer_follows_rate": True, "head_transfer_decay": 0.9})
    bodies = [[*groups(trainer.network)[f"{side} decoder"]] for side in ("labeled", "unlabeled")]
    heads = trainer.network.labeled_decoder.main_head, trainer.network.labeled_decoder.auxiliary_head

    def distances() -> tuple[float, float]:
        return (
            math.sqrt(sum((a - b).square().sum().item() for a, b in zip(*bodies, strict=True))),
            (heads[0].weight - heads[1].weight).norm().item(),
        )

    for fraction in (1.0, 0.25, 0.0):
        trainer.optimizer.param_groups[0]["lr"] = fraction * trainer.initial_lr
        before = distances()
        trainer.transfer_knowledge()
        for new, old, decay in zip(distances(), before, (0.99, 0.9), strict=True):
            assert new == pytest.approx(old * (1 - fraction * (1 - decay)), rel=1e-5)


# ---- clipping


def test_branches_are_clipped_apart(make_dataset):
    trainer = make_trainer(make_dataset(preprocess=False), nnUNetTrainerSKCDF)
    trainer.initialize()
    shared, *branches = [{id(p) for p in group} for group in trainer.clipping_groups()]
    net = trainer.network
    assert branches == [{id(p) for p in d.parameters()} for d in (net.labeled_decoder, net.unlabeled_decoder)]
    assert shared == {id(p) for p in net.parameters()} - branches[0] - branches[1] and shared
