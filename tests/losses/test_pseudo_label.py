from __future__ import annotations

import math

import pytest
import torch

from nnunet_ssl.losses import pseudo_label
from nnunet_ssl.losses.pseudo_label import (
    Decision,
    below_percentile,
    decide,
    decide_regions,
    entropy,
    entropy_filtered_pseudo_label,
    masked_cross_entropy,
    unite,
    within_class_percentile,
)
from nnunet_ssl.losses.regions import as_two_classes


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- entropy and percentile


def test_entropy_in_nats():
    assert entropy(torch.zeros(2, 5, 3, 4)).flatten().tolist() == pytest.approx([math.log(5)] * 24)
    assert entropy(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)).item() == pytest.approx(0.582203, abs=1e-6)
    certain = torch.tensor([1e4, 0.0, -1e4]).view(1, 3, 1, 1)
    assert entropy(certain).item() == 0.0
    assert entropy(certain.half()).dtype == torch.float32


@pytest.mark.parametrize(("percentile", "below"), [(80, 8), (20, 2), (0, 0), (100, 9)])
def test_percentile_is_interpolated_and_strict(percentile, below):
    values = torch.arange(10.0)[torch.randperm(10, generator=torch.Generator().manual_seed(0))].view(1, 2, 5)
    kept = below_percentile(values, percentile)
    assert kept.sum().item() == below and values[kept].max().item() == below - 1 if below else not kept.any()


@pytest.mark.parametrize(("percentile", "threshold"), [(80, 7.2), (20, 1.8)])
def test_value_of_the_percentile(percentile, threshold):
    for offset, kept in ((-1e-4, True), (1e-4, False)):
        values = torch.arange(10.0)
        # the two values between which the percentile lies, one of them moved so that the percentile stays where it is
        low = math.floor(threshold)
        share = threshold - low
        values[low] = threshold + offset
        values[low + 1] = threshold - offset * (1 - share) / share
        assert below_percentile(values.view(1, 10), percentile)[0, low].item() is kept


def test_constant_values_are_never_below():
    assert not below_percentile(torch.full((1, 4, 4), 0.3), 80).any()


def test_masked_values_do_not_count():
    values = torch.cat([torch.arange(10.0), torch.full((90,), -1.0)]).view(1, 100)
    mask = (values >= 0).unsqueeze(1)
    kept = below_percentile(values, 80, mask)
    assert kept[0, :10].sum().item() == 8 and not kept[0, 10:].any()
    assert not below_percentile(values, 80, torch.zeros_like(mask)).any()


@pytest.mark.parametrize("percentile", [20.0, 80.0])
def test_thinned_percentile(monkeypatch, percentile):
    values = logits(2, 1, 40, 41)[:, 0]
    exact = below_percentile(values, percentile).double().mean().item()
    monkeypatch.setattr(pseudo_label, "LARGEST_SORT", 1000)
    thinned = below_percentile(values, percentile).double().mean().item()
    assert exact == pytest.approx(percentile / 100, abs=1e-3)
    assert thinned == pytest.approx(exact, abs=0.05) and thinned != exact


@pytest.mark.parametrize(("percentile", "same", "independent"), [(80, 0.8, 0.96), (20, 0.2, 0.36)])
def test_kept_fraction(percentile, same, independent):
    a, b = logits(1, 3, 100, 100), logits(1, 3, 100, 100, seed=1)
    assert entropy_filtered_pseudo_label(a, a, percentile)[1].double().mean().item() == pytest.approx(same, abs=1e-3)
    kept = entropy_filtered_pseudo_label(a, b, percentile)[1].double().mean().item()
    assert kept == pytest.approx(independent, abs=0.02)  # 4 standard errors


@pytest.mark.parametrize("percentile", [0.0, 20.0, 80.0, 100.0])
def test_each_class_has_a_percentile_of_its_own(percentile):
    z = logits(2, 4, 9, 10, 11)
    z[:, 3] -= 9  # never the most probable class
    z[0, 2, 0, 0, 0] = 30.0
    values, label, mask = entropy(z), z.argmax(1), logits(2, 1, 9, 10, 11, seed=1) > -0.5
    kept = within_class_percentile(values, label, 4, percentile, mask)
    for k in range(3):
        own = (label == k) & mask[:, 0]
        threshold = values[own].quantile(percentile / 100)
        assert torch.equal(kept & (label == k), own & (values <= threshold)) and (kept & own).any()
    assert not (kept & ~mask[:, 0]).any()


def test_a_class_of_one_voxel_is_kept_and_so_is_a_constant():
    values, label = torch.rand(1, 50), torch.zeros(1, 50, dtype=torch.long)
    label[0, 7], values[0, 7] = 1, 5.0
    assert within_class_percentile(values, label, 3, 80.0)[0, 7]
    assert within_class_percentile(torch.full((1, 50), 0.3), label, 3, 80.0).all()
    assert not within_class_percentile(values, label, 3, 80.0, torch.zeros(1, 1, 50)).any()


def test_a_class_that_thinning_has_missed_is_kept(monkeypatch):
    monkeypatch.setattr(pseudo_label, "LARGEST_SORT", 100)
    values, label = torch.rand(1, 1000), torch.zeros(1, 1000, dtype=torch.long)
    label[0, 5] = 2  # every 11th voxel enters
    kept = within_class_percentile(values, label, 3, 80.0)
    assert kept[0, 5] and kept.double().mean() == pytest.approx(0.8, abs=0.1)


def test_an_unknown_scope_is_refused():
    with pytest.raises(ValueError, match="scope must be one of voxels, class"):
        decide(logits(1, 3, 4, 4), scope="image")


@pytest.mark.parametrize("scope", ["voxels", "class"])
def test_a_problem_of_two_classes_is_the_same_as_a_region(scope):
    a, b = logits(2, 1, 30, 30) * 3, logits(2, 1, 30, 30, seed=1) * 3
    of_region = unite(*(decide_regions(z, scope=scope) for z in (a, b)))
    of_classes = entropy_filtered_pseudo_label(as_two_classes(a), as_two_classes(b), scope=scope)
    assert torch.equal(of_region[0][:, 0], of_classes[0]) and torch.equal(of_region[1], of_classes[1])
    assert (of_region[0][:, 0] != (torch.maximum(a, b) > 0)[:, 0]).any()  # it is no plain union


# ---- labels


def two(first: tuple, second: tuple) -> tuple[Decision, Decision]:
    """Decisions about one voxel, each given as (label, reliable, entropy)."""
    made = [Decision(torch.tensor([[x[0]]]), torch.tensor([[x[1]]]), torch.tensor([[x[2]]])) for x in (first, second)]
    return made[0], made[1]


@pytest.mark.parametrize(
    ("first", "second", "label", "valid"),
    [
        ((2, True, 0.1), (2, False, 0.9), 2, True),  # equal
        ((2, True, 0.1), (1, False, 0.05), 2, True),  # one reliable
        ((0, True, 0.1), (1, False, 0.9), 0, True),  # one reliable, which says background
        ((0, True, 0.1), (3, True, 0.2), 3, True),  # both: foreground before background
        ((1, True, 0.1), (3, True, 0.2), 1, True),  # both foreground: the surer one
        ((1, True, 0.3), (3, True, 0.2), 3, True),
        ((0, False, 0.1), (3, False, 0.2), 3, False),  # neither
        ((1, False, 0.3), (2, False, 0.2), 2, False),
    ],
)
def test_union_of_two_networks(first, second, label, valid):
    for pair in ((first, second), (second, first)):
        labels, valids = unite(*two(*pair))
        assert (labels.item(), valids.item()) == (label, valid)


def test_two_reliable_networks_with_two_classes_are_united_by_or():
    a, b = logits(1, 2, 30, 30), logits(1, 2, 30, 30, seed=1)
    labels, valid = entropy_filtered_pseudo_label(a, b)
    first, second = decide(a), decide(b)
    assert torch.equal(valid, first.reliable | second.reliable)
    both = first.reliable & second.reliable
    assert both.any() and torch.equal(labels[both], (first.label | second.label)[both])


def test_pseudo_labels_of_several_classes_and_masks():
    a, b = logits(2, 4, 6, 7, 8).requires_grad_(), logits(2, 4, 6, 7, 8, seed=1).requires_grad_()
    mask = torch.ones(2, 1, 6, 7, 8, dtype=torch.bool)
    mask[1, :, :3] = False
    labels, valid = entropy_filtered_pseudo_label(a, b, mask=mask)
    assert labels.shape == valid.shape == (2, 6, 7, 8)
    assert labels.dtype == torch.int64 and valid.dtype == torch.bool and not labels.requires_grad
    assert set(labels.unique().tolist()) == {0, 1, 2, 3}
    assert not valid[1, :3].any() and valid[mask[:, 0]].double().mean() > 0.9
    again, valid_again = entropy_filtered_pseudo_label(b, a, mask=mask)
    assert torch.equal(again, labels) and torch.equal(valid_again, valid)


def test_regions_are_united_and_share_one_filter():
    a, b = logits(2, 3, 9, 10), logits(2, 3, 9, 10, seed=1)
    first, second = decide_regions(a), decide_regions(b)
    averaged = entropy(as_two_classes(a)).view(2, 3, 9, 10).mean(1)
    torch.testing.assert_close(first.entropy, averaged)
    assert torch.equal(first.reliable, below_percentile(averaged, 80.0))
    labels, valid = unite(first, second)
    inside = ((a.sigmoid() > 0.5) | (b.sigmoid() > 0.5)).long()
    alike = first.reliable == second.reliable
    assert torch.equal(labels.movedim(1, -1)[alike], inside.movedim(1, -1)[alike])
    for own in (first, second):
        alone = own.reliable & ~alike
        assert torch.equal(labels.movedim(1, -1)[alone], own.label.movedim(1, -1)[alone])
    assert torch.equal(valid, first.reliable | second.reliable) and valid.shape == (2, 9, 10)
    certain = decide_regions(torch.tensor([-1e4, 1e4, 0.0]).view(1, 3, 1, 1))
    assert certain.entropy.item() == pytest.approx(math.log(2) / 3)


# ---- cross-entropy


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_undecided_logits_cost_ln_k_for_any_target(classes):
    labels = torch.randint(0, classes, (2, 4, 4, 4), generator=torch.Generator().manual_seed(0))
    valid = torch.zeros(2, 4, 4, 4, dtype=torch.bool)
    valid[0, 0, 0, 0] = True
    for mask in (valid, ~valid):
        value = masked_cross_entropy(torch.zeros(2, classes, 4, 4, 4), labels, mask)
        assert value.item() == pytest.approx(math.log(classes), abs=1e-6)


def test_nothing_valid_gives_zero_that_is_still_connected():
    constant = torch.zeros(1, 3, 4, 4)
    labels, valid = entropy_filtered_pseudo_label(constant, constant)
    assert not valid.any()
    z = logits(1, 3, 4, 4).requires_grad_()
    value = masked_cross_entropy(z, labels, valid)
    value.backward()
    assert value.item() == 0.0 and not z.grad.any() and z.grad.isfinite().all()


def test_ignored_voxels_have_no_gradient_and_no_influence():
    z = logits(2, 3, 5, 5).requires_grad_()
    labels = logits(2, 3, 5, 5, seed=1).argmax(1)
    valid = logits(2, 5, 5, seed=2) > 0
    value = masked_cross_entropy(z, labels, valid)
    (gradient,) = torch.autograd.grad(value, z)
    ignored = (~valid).unsqueeze(1).expand_as(z)
    assert not gradient[ignored].any() and gradient[~ignored].all()
    changed = z.detach().clone()
    changed[ignored] = 100 * torch.rand_like(changed[ignored])
    assert torch.equal(masked_cross_entropy(changed, torch.where(valid, labels, -1), valid), value)
    chosen = z.detach().movedim(1, -1)[valid]
    torch.testing.assert_close(value, torch.nn.functional.cross_entropy(chosen, labels[valid]))


def test_the_pseudo_label_loss_teaches_each_network_alone():
    """The authors' script evaluates this loss on detached tensors, where it teaches nobody."""
    a, b = logits(1, 3, 8, 8).requires_grad_(), logits(1, 3, 8, 8, seed=1).requires_grad_()
    labels, valid = entropy_filtered_pseudo_label(a, b)
    for own, other in ((a, b), (b, a)):
        loss = masked_cross_entropy(own, labels, valid)
        assert loss.requires_grad
        mine, none = torch.autograd.grad(loss, (own, other), allow_unused=True)
        assert none is None and mine.abs().sum() > 0


def test_half_precision_is_evaluated_in_float32():
    z = 30 * logits(1, 3, 8, 8)
    labels, valid = entropy_filtered_pseudo_label(z.half(), -z.half())
    value = masked_cross_entropy(z.half(), labels, valid)
    assert value.dtype == torch.float32 and value.isfinite()
    torch.testing.assert_close(value, masked_cross_entropy(z.half().float(), labels, valid))
