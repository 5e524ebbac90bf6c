"""What one step of DKUXNet does: who learns from which term, which values are right, what does not count."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nnunet_ssl.architectures.dkuxnet import DKUXNetOutput
from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.losses.info_nce import paired_distance, paired_info_nce, voxelwise_info_nce
from nnunet_ssl.losses.query_distribution import log_query_distribution, query_distribution_loss
from nnunet_ssl.trainers.dkuxnet.paper import nnUNetTrainerDKUXNet_paper
from nnunet_ssl.trainers.dkuxnet.supervised import nnUNetTrainerDKUXNetSupervised
from nnunet_ssl.trainers.dkuxnet.trainer import nnUNetTrainerDKUXNet
from nnunet_ssl.training.deep_supervision import resize_to
from nnunet_ssl.training.network import unwrap
from tests.running import SHORT, make_trainer

SMALL = {"queries": 8, "query_width": 16, "pixel_width": 8, "mask_width": 4}
INFONCE = {"contrast": "sample", "contrast_channels": "foreground"}
AT_WORK = {**SMALL, "warmup_fraction": 0.0, "rampup_fraction": 0.0, **INFONCE}
REGIONS = {"labels": {"background": 0, "whole": (1, 2), "box": 2}, "regions_class_order": (1, 2)}
IGNORE = {"labels": {"background": 0, "ball": 1, "box": 2, "ignore": 3}}
REGIONS_IGNORE = {"labels": {**REGIONS["labels"], "ignore": 3}, "regions_class_order": (1, 2)}
LABELED_TERMS = ("supervised", "query_distribution", "assignment")
CONTRAST = ("segmentation_contrast", "query_contrast")


def started(
    dataset: Path, configuration: str = "2d", trainer: type = nnUNetTrainerDKUXNet, **options: Any
) -> nnUNetTrainerDKUXNet:
    options.setdefault("hyperparameters", AT_WORK)
    made = make_trainer(dataset, trainer, configuration, **options)
    made.on_train_start()
    made.on_train_epoch_start()
    return made


def batch_of(trainer: Any, all_valid: bool = True) -> tuple[LabeledBatch, UnlabeledBatch]:
    labeled, unlabeled = trainer.split_batch(next(trainer.dataloader_train))
    if all_valid:
        labeled.valid.fill_(True)
        unlabeled.valid.fill_(True)
    return labeled, unlabeled


def random_output(labeled: LabeledBatch, unlabeled: UnlabeledBatch, outputs: int = 3) -> DKUXNetOutput:
    """Logits and responses that are leaves with a gradient; two layers, at half and at a quarter of the resolution."""
    generator = torch.Generator().manual_seed(0)
    images = 2 * (len(labeled.weak) + len(unlabeled.weak))

    def leaf(channels: int, factor: int = 1) -> Tensor:
        size = [s // factor for s in labeled.weak.shape[2:]]
        return torch.randn(images, channels, *size, generator=generator).requires_grad_()

    return DKUXNetOutput(leaf(outputs), leaf(8), [leaf(8, 2), leaf(8, 4)])


def terms_of(trainer: Any, labeled: LabeledBatch, unlabeled: UnlabeledBatch, out: DKUXNetOutput) -> dict[str, Tensor]:
    trainer.forward = lambda *_: DKUXNetOutput(
        as_forwarded(out.logits), as_forwarded(out.responses), [as_forwarded(maps) for maps in out.intermediate]
    )
    return trainer.losses(labeled, unlabeled)


def as_forwarded(maps: Tensor) -> Tensor:
    """All weak views and then all strong ones, of two labelled patches and perhaps two others: in the step's order."""
    if len(maps) == 4:
        return maps
    weak, other_weak, strong, other_strong = maps.split(2)
    return torch.cat([weak, strong, other_weak, other_strong])


def gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, leaf, retain_graph=True, allow_unused=True)
    return torch.zeros_like(leaf) if found is None else found


# ---- who learns from what


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_assignment_is_learned_from_its_own_term_alone(make_dataset, weight):
    trainer = started(make_dataset(), hyperparameters={**AT_WORK, "assignment_weight": weight})
    sum(trainer.losses(*batch_of(trainer)).values()).backward()
    net = trainer.network
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())  # under DDP too
    for layers in net.kmax_layers:
        for layer in layers:
            heads = [p for p in layer.predictor.parameters() if p is not layer.predictor.temperature.bias]
            assert all(bool(p.grad.any()) == (weight > 0) for p in heads)


def test_unlabelled_patches_stay_out_of_the_step_before_the_contrast_begins(make_dataset):
    dataset, seen = make_dataset(), []
    for fraction in (0.5, 0.0):
        trainer = started(dataset, hyperparameters={**AT_WORK, "warmup_fraction": fraction})
        trainer.network.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
        terms = trainer.losses(*batch_of(trainer))
        assert (set(terms) == set(LABELED_TERMS)) == (fraction > 0)
    assert seen == [4, 8]  # two labelled patches in two views; then two unlabelled ones, too


@pytest.mark.parametrize("norms", ["independent", "batch"])
def test_every_weight_moves_and_one_forward_suffices(make_dataset, norms):
    trainer = started(make_dataset(channels=2), "3d_fullres", training={**SHORT, "weight_decay": 0.0},
                      hyperparameters={**AT_WORK, "norms": norms})  # fmt: skip
    calls, forward = [], trainer.forward
    trainer.forward = lambda *arguments: calls.append((arguments[1].shape, arguments[2])) or forward(*arguments)
    before = [p.detach().clone() for p in trainer.network.parameters()]
    for _ in range(3):
        result = trainer.train_step(next(trainer.dataloader_train))
    assert math.isfinite(result["loss"]) and calls == [((8, 2, 16, 16, 16), 4)] * 3
    shifts = {id(m.temperature.bias) for m in trainer.network.modules() if hasattr(m, "temperature")}
    for (name, p), old in zip(trainer.network.named_parameters(), before, strict=True):
        assert p.grad is not None and p.grad.isfinite().all(), name
        assert id(p) in shifts or not torch.equal(p, old), name


# ---- values


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_terms_are_the_losses_with_their_weights(make_dataset, configuration):
    switches = {**AT_WORK, "query_loss_weight": 2.0, "assignment_weight": 3.0, "contrast_weight": 5.0,
                "temperature": 0.3, "group_sizes": [3, 1, 4]}  # fmt: skip
    trainer = started(make_dataset(), configuration, hyperparameters=switches)
    assert trainer.group_of_query.tolist() == [0, 0, 0, 1, 2, 2, 2, 2]
    labeled, unlabeled = batch_of(trainer)
    out = random_output(labeled, unlabeled)
    terms = terms_of(trainer, labeled, unlabeled, out)
    groups, target = trainer.group_of_query, labeled.target.long()
    both = torch.tensor([0, 1, 4, 5])

    def query_loss(responses: Tensor) -> Tensor:
        coarse = resize_to(target, [responses])[0]
        return query_distribution_loss(responses[both], torch.cat([coarse, coarse]), groups)

    foreground = out.logits.softmax(1)[:, 1:].flatten(1)
    distribution = log_query_distribution(out.responses, groups).exp()[:, 1:].flatten(1)
    expected = {
        "supervised": (trainer.loss(out.logits[:2], labeled.target) + trainer.loss(out.logits[4:6], labeled.target))
        / 2,
        "query_distribution": 2 * query_loss(out.responses),
        "assignment": 3 * sum(query_loss(r) for r in out.intermediate) / 2,
        "segmentation_contrast": 5 * paired_info_nce(foreground, 0.3),
        "query_contrast": 5 * paired_info_nce(distribution, 0.3),
    }
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, msg=name)


def test_forms_of_the_contrast(make_dataset):
    dataset = make_dataset()
    trainer = started(dataset)
    labeled, unlabeled = batch_of(trainer)
    out = random_output(labeled, unlabeled)
    probability = out.logits.softmax(1)
    distribution = log_query_distribution(out.responses, trainer.group_of_query).exp()

    seen: dict[str, float] = {}

    def contrast(**switches: Any) -> tuple[Tensor, Tensor]:
        switches = {**AT_WORK, "contrast_weight": 1.0, **switches}
        own = started(dataset, hyperparameters=switches)
        terms = terms_of(own, labeled, unlabeled, out)
        seen.update(own.monitor.epoch_means())
        return tuple(terms.get(name) for name in CONTRAST)

    found = contrast(contrast="none")
    expected = (paired_distance(probability[:, 1:].flatten(1)), paired_distance(distribution[:, 1:].flatten(1)))
    torch.testing.assert_close(found, expected)
    found = contrast(contrast="voxel", contrast_channels="all")
    torch.testing.assert_close(found, (voxelwise_info_nce(probability), voxelwise_info_nce(distribution)))
    assert not [name for name in seen if name.endswith("_collapse")]
    found = contrast(contrast_channels="all")
    alike = math.log(2 * len(labeled) + 2 * len(unlabeled) - 1)
    assert seen["query_contrast_collapse"] == pytest.approx(found[1].item() / alike - 1, abs=1e-5)
    torch.testing.assert_close(found[0], paired_info_nce(probability.flatten(1)))
    torch.testing.assert_close(found[1], paired_info_nce(distribution.flatten(1)))
    assert contrast(segmentation_contrast=False)[0] is None and contrast(query_contrast=False)[1] is None
    detached = contrast(detach_weak=True)[0]
    torch.testing.assert_close(detached, contrast()[0])
    learned, otherwise = (gradient(loss, out.logits) for loss in (detached, contrast()[0]))
    assert not learned[:4].any() and learned[4:].any() and all(view.any() for view in otherwise.split(4))


def test_weight_of_the_contrast_along_the_training(make_dataset):
    trainer = make_trainer(make_dataset(), nnUNetTrainerDKUXNet, "2d", hyperparameters=SMALL,
                           training={"num_epochs": 100, "num_iterations_per_epoch": 10})  # fmt: skip
    trainer.maps = lambda out, labeled, background: {"segmentation": out, "query": out}
    trainer.contrast = lambda maps, counted: torch.ones(())
    found, names = {}, ("segmentation_contrast", "query_contrast")
    for epoch, step in ((0, 0), (9, 9), (10, 0), (25, 0), (40, 0), (99, 9)):
        trainer.current_epoch, trainer.step = epoch, step
        terms = trainer.contrast_terms(torch.ones(2), torch.ones(2), 1)
        found[epoch + step / 10] = [
            float(terms.get(name, 0)) / trainer.hyperparameters.contrast_weight for name in names
        ]
    expected = {0: 0, 9.9: 0, 10: math.exp(-5), 25: math.exp(-1.25), 40: 1, 99.9: 1}
    for name, values in zip(names, zip(*found.values(), strict=True), strict=True):
        assert values == pytest.approx(tuple(expected.values())), name


# ---- regions, ignore label, padding


def test_labels_are_merged_to_groups(make_dataset):
    dataset = make_dataset(**IGNORE)
    for groups, last in ((None, 2), (2, 1)):
        trainer = started(dataset, hyperparameters={**AT_WORK, "groups": groups})
        target = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
        valid = torch.tensor([[[[False, True], [True, True]]]])
        merged, counted = trainer.group_labels(LabeledBatch(torch.zeros(1, 1, 2, 2), target, valid=valid))
        assert merged[0, 0].tolist()[0] == [0, 1] and merged[0, 0, 1, 0] == last
        assert counted[0, 0].tolist() == [[False, True], [True, False]]
        assert target.flatten().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("recipe", [IGNORE, REGIONS, REGIONS_IGNORE], ids=["ignore", "regions", "regions and ignore"])
def test_voxels_that_do_not_count(make_dataset, recipe):
    trainer = started(make_dataset(**recipe))
    labeled, unlabeled = batch_of(trainer)
    regions = trainer.label_manager.has_regions
    if trainer.label_manager.has_ignore_label:
        labeled.target[0] = labeled.target[0].clamp(max=0)
        labeled.target[0, -1 if regions else 0, :5] = 1 if regions else 3
    unlabeled.valid[1, :, 4:] = False
    labeled.valid[1, :, 12:] = False
    out = random_output(labeled, unlabeled, trainer.label_manager.num_segmentation_heads)
    terms = terms_of(trainer, labeled, unlabeled, out)
    assert len(trainer.group_of_query.unique()) == (2 if regions else 3)
    for name in CONTRAST:
        learned = gradient(terms[name], out.logits if "segmentation" in name else out.responses)
        for view in (learned[:4], learned[4:]):
            assert not view[3][:, 4:].any() and view[3][:, :4].any()
            assert not view[1][:, 12:].any() and view[1][:, :12].any()
            if trainer.label_manager.has_ignore_label:
                assert not view[0][:, :5].any() and view[0][:, 5:].any()
    learned = gradient(terms["query_distribution"], out.responses)
    assert not learned[1][:, 12:].any() and learned[1][:, :12].any()
    if trainer.label_manager.has_ignore_label:
        assert not learned[0][:, :5].any() and learned[4][:, 5:].any()


def test_regions_are_foreground_each(make_dataset):
    trainer = started(make_dataset(**REGIONS), hyperparameters={**AT_WORK, "contrast_weight": 1.0})
    labeled, unlabeled = batch_of(trainer)
    out = random_output(labeled, unlabeled, 2)
    terms = terms_of(trainer, labeled, unlabeled, out)
    torch.testing.assert_close(terms["segmentation_contrast"], paired_info_nce(out.logits.sigmoid().flatten(1)))
    merged, _ = trainer.group_labels(labeled)
    assert torch.equal(merged, (labeled.target > 0).any(1, keepdim=True).long()) and merged.any()


def test_no_foreground_at_all_is_finite(make_dataset):
    trainer = started(make_dataset())
    labeled, unlabeled = batch_of(trainer)
    labeled.target.zero_()
    out = random_output(labeled, unlabeled)
    with torch.no_grad():
        out.logits[:, 0] += 200
        out.responses[:, :4] += 200
    terms = terms_of(trainer, labeled, unlabeled, out)
    assert all(loss.isfinite() for loss in terms.values())
    for leaf in (out.logits, out.responses, *out.intermediate):
        assert gradient(sum(terms.values()), leaf).isfinite().all()


# ---- what is logged


def test_monitors(make_dataset):
    trainer = started(make_dataset(), hyperparameters=AT_WORK)
    labeled, unlabeled = batch_of(trainer)
    out = random_output(labeled, unlabeled)
    with torch.no_grad():
        out.logits[4:] = out.logits[:4]
        out.responses.fill_(0.0)[:, 3] = 1.0
        out.intermediate[0].fill_(0.0)[:, :1, :4], out.intermediate[0][:, 5:6, 4:] = 1.0, 1.0
        out.intermediate[1].fill_(0.0)[:, 2] = 1.0
    terms_of(trainer, labeled, unlabeled, out)
    means = trainer.monitor.epoch_means()
    assert means["count_used_queries"] == pytest.approx(1) and means["agreement"] == 1.0
    assert means["count_used_queries_of_layers"] == pytest.approx((2 + 1) / 2)
    assert means["count_used_queries_per_group"] == means["count_used_queries_per_group_of_layers"] == pytest.approx(1)
    assert means["similarity_of_partners_segmentation"] == pytest.approx(1.0)
    assert means["similarity_of_others_segmentation"] < 0.9
    assert means["similarity_of_others_query"] == pytest.approx(1.0)
    probability = 1 - out.logits.softmax(1)[:, 0]
    assert means["predicted_foreground_labeled"] == pytest.approx(probability[:2].mean().item())
    assert means["predicted_foreground_unlabeled"] == pytest.approx(probability[2:4].mean().item())
    assert means["response_scale"] == 1.0


# ---- what is refused or said, and checkpoints of earlier versions


def test_voxelwise_contrast_of_the_foreground_alone_is_refused(make_dataset):
    dataset = make_dataset(preprocess=False)
    with pytest.raises(NotImplementedError, match=r"contrast=voxel needs contrast_channels=all"):
        make_trainer(dataset, nnUNetTrainerDKUXNet, "2d", hyperparameters={**AT_WORK, "contrast": "voxel"})


def test_voxelwise_contrast_is_warned_about(make_dataset):
    dataset, options = make_dataset(), {**SMALL, "contrast": "voxel"}
    for hyperparameters, warned in ((SMALL, False), (options, True)):
        trainer = started(dataset, hyperparameters=hyperparameters)
        text = Path(trainer.log_file).read_text()
        assert ("contrast=voxel has the same position" in text) == warned


@pytest.mark.usefixtures("no_figures")
def test_a_training_that_began_on_other_levels_is_not_continued(make_dataset, tmp_path):
    dataset = make_dataset()
    options = {**SMALL, "kmax_levels": [1]}
    first = started(dataset, hyperparameters=options)
    first.train_step(next(first.dataloader_train))
    first.save_checkpoint(str(tmp_path / "first.pth"))
    other = make_trainer(dataset, nnUNetTrainerDKUXNet, "2d", hyperparameters=SMALL)
    with pytest.raises(SemiSupervisedError, match=r'(?s)levels \[1\].*add "kmax_levels": \[1\].*nnUNetTrainerDKUXNet'):
        other.load_checkpoint(str(tmp_path / "first.pth"))
    same = make_trainer(dataset, nnUNetTrainerDKUXNet, "2d", hyperparameters=options)
    same.load_checkpoint(str(tmp_path / "first.pth"))


# ---- the presets


def test_the_published_three_groups_fit_two_classes(make_dataset):
    dataset = make_dataset(labels={"background": 0, "ball": 1})
    trainer = started(dataset, "2d", nnUNetTrainerDKUXNet_paper, hyperparameters={"query_width": 16, "queries": 24})
    assert trainer.group_sizes == [16, 4, 4] and trainer.hyperparameters.contrast == "sample"
    terms = trainer.losses(*batch_of(trainer))
    assert all(term.isfinite() for term in terms.values())
    with pytest.raises(SemiSupervisedError, match="at most 2 groups"):
        make_trainer(dataset, nnUNetTrainerDKUXNet, "2d", hyperparameters={**SMALL, "groups": 3})
    with pytest.raises(SemiSupervisedError, match="at most 3 groups"):
        make_trainer(dataset, nnUNetTrainerDKUXNet_paper, "2d", hyperparameters={"groups": 4})


def test_the_published_settings_train_on_labels_alone_without_a_contrast(make_dataset):
    options = {"query_width": 16, "queries": 24, "contrast_weight": 0.0}
    trainer = started(make_dataset(unlabeled=0), "2d", nnUNetTrainerDKUXNet_paper, hyperparameters=options)
    labeled, unlabeled = batch_of(trainer)
    assert len(unlabeled) == 0 and tuple(trainer.losses(labeled, unlabeled)) == LABELED_TERMS
    assert trainer.recipe_in_force.optimization.rate == 1e-4 and trainer.num_epochs == 2


# ---- the control


def test_labelled_cases_alone_need_no_unlabelled_image(make_dataset):
    dataset = make_dataset(unlabeled=0)
    trainer = started(dataset, "3d_fullres", nnUNetTrainerDKUXNetSupervised, hyperparameters=SMALL)
    labeled, unlabeled = batch_of(trainer)
    assert len(unlabeled.weak) == len(unlabeled.strong) == 0 and len(labeled.weak) == 2
    out = random_output(labeled, unlabeled)
    terms = terms_of(trainer, labeled, unlabeled, out)
    assert tuple(terms) == LABELED_TERMS
    target, groups = labeled.target.long(), trainer.group_of_query
    expected = query_distribution_loss(out.responses, torch.cat([target, target]), groups)
    torch.testing.assert_close(terms["query_distribution"], expected)
    means = trainer.monitor.epoch_means()
    assert {"count_used_queries", "similarity_of_partners_query", "predicted_foreground_labeled"} <= set(means)
    assert unwrap(trainer.network).decoder.deep_supervision is False
