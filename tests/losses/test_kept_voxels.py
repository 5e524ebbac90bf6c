"""Dice and cross-entropy towards hard labels of kept voxels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from nnunet_ssl.losses.pseudo_label import pseudo_cross_entropy, pseudo_dice
from nnunet_ssl.losses.squared_dice import squared_dice


def two_voxels() -> tuple[torch.Tensor, torch.Tensor]:
    """p = (.2, .8), (.6, .4) with the labels 1 and 0."""
    p = torch.tensor([[0.2, 0.6], [0.8, 0.4]], dtype=torch.float64).log().view(1, 2, 1, 2)
    return p.requires_grad_(), torch.tensor([1, 0]).view(1, 1, 1, 2)


def keep(*flags: int) -> torch.Tensor:
    return torch.tensor(flags, dtype=torch.bool).view(1, 1, 1, -1)


@pytest.mark.parametrize(
    ("kept", "value"), [((1, 0), 0.51207008), ((1, 1), 0.12698331), ((0, 0), 0.0)], ids=["one", "both", "none"]
)
def test_dice_of_kept_voxels(kept, value):
    z, label = two_voxels()
    loss = pseudo_dice(z, label, keep(*kept))
    assert loss.item() == pytest.approx(value, abs=1e-8)
    (gradient,) = torch.autograd.grad(loss, z)
    moved = gradient.abs().sum(1)[0, 0]
    # with one class per voxel kept alone, the softmax still pulls on it; a rejected voxel gets exactly nothing
    assert [bool(g > 0) for g in moved] == [bool(k) for k in kept]


@pytest.mark.parametrize(
    ("kept", "of_each"), [((1, 0), (0.99975006, 0.02439010)), ((1, 1), (0.14285612, 0.11111049)), ((0, 0), (0.0, 0.0))],
    ids=["one", "both", "none"],
)  # fmt: skip
def test_dice_of_each_class_alone(kept, of_each):
    """With the two classes in this order and in the other, the one foreground class of :func:`squared_dice`."""
    z, label = two_voxels()
    found = [squared_dice(z.flip(1), 1 - label, keep(*kept)).item(), squared_dice(z, label, keep(*kept)).item()]
    assert found == pytest.approx(of_each, abs=1e-8)
    assert pseudo_dice(z, label, keep(*kept)).item() == pytest.approx(sum(found) / 2, abs=1e-12)


def test_nothing_kept_is_exactly_zero_and_connected():
    z, label = two_voxels()
    for loss in (pseudo_dice(z, label, keep(0, 0)), pseudo_cross_entropy(z, label, keep(0, 0))):
        assert loss.item() == 0.0 and loss.requires_grad
        assert torch.autograd.grad(loss, z)[0].count_nonzero() == 0


def test_cross_entropy_counts_rejected_voxels_as_zero():
    z, label = two_voxels()
    loss = pseudo_cross_entropy(z, label, keep(1, 0))
    assert loss.item() == pytest.approx(0.11157178, abs=1e-8)
    (gradient,) = torch.autograd.grad(loss, z)
    assert gradient[0, :, 0, 0].tolist() == pytest.approx([0.1, -0.1], abs=1e-8)
    assert gradient[0, :, 0, 1].tolist() == [0.0, 0.0]
    only_kept_valid = pseudo_cross_entropy(z, label, keep(1, 0), valid=keep(1, 0))
    assert only_kept_valid.item() == pytest.approx(0.22314355, abs=1e-8)
    other_voxel = pseudo_cross_entropy(z, label, keep(0, 1), valid=keep(0, 1))
    assert other_voxel.item() == pytest.approx(0.51082562, abs=1e-8)
    assert pseudo_cross_entropy(z, label, keep(1, 1), valid=keep(1, 0)).item() == only_kept_valid.item()


def test_class_weights_as_torch_has_them():
    torch.manual_seed(0)
    z, label = torch.randn(2, 3, 4, 5), torch.randint(3, (2, 1, 4, 5))
    weight, everywhere = torch.tensor([0.5, 2.0, 3.0]), torch.ones(2, 1, 4, 5, dtype=torch.bool)
    expected = F.cross_entropy(z, label[:, 0], weight)
    torch.testing.assert_close(pseudo_cross_entropy(z, label, everywhere, class_weight=weight), expected)
    torch.testing.assert_close(pseudo_cross_entropy(z, label, everywhere), F.cross_entropy(z, label[:, 0]))


def test_weights_of_zero_give_zero_and_no_nan():
    z = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).T.reshape(1, 2, 1, 2).requires_grad_()
    weight = torch.tensor([0.0, 2.0])
    background = pseudo_cross_entropy(z, torch.zeros(1, 1, 1, 2), keep(1, 1), class_weight=weight)
    assert background.item() == 0.0 and torch.isfinite(torch.autograd.grad(background, z)[0]).all()
    foreground = pseudo_cross_entropy(z, torch.ones(1, 1, 1, 2), keep(1, 1), class_weight=weight)
    assert foreground.item() == pytest.approx(0.72009485, abs=1e-6)


def test_labels_where_not_kept_may_be_anything():
    z, label = two_voxels()
    strange = label.clone()
    strange[..., 1] = -1
    assert pseudo_dice(z, strange, keep(1, 0)).item() == pseudo_dice(z, label, keep(1, 0)).item()
    assert pseudo_cross_entropy(z, strange, keep(1, 0)).item() == pseudo_cross_entropy(z, label, keep(1, 0)).item()


def test_half_precision_is_evaluated_in_float32():
    z, label = two_voxels()
    assert pseudo_dice(z.half(), label, keep(1, 1)).dtype == torch.float32
    assert pseudo_cross_entropy(z.half(), label, keep(1, 1)).dtype == torch.float32
