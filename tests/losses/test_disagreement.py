from __future__ import annotations

import math

import pytest
import torch

from nnunet_ssl.losses.disagreement import disagreement, foreground_mse
from nnunet_ssl.losses.squared_dice import squared_dice, squared_dice_ce


def voxel(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log().view(1, -1, 1, 1, 1)


def test_one_voxel_in_dispute():
    first, second, target = voxel(0.1, 0.9), voxel(0.6, 0.4), torch.zeros(1, 1, 1, 1, 1)
    mask = disagreement(first, second)
    assert mask.shape == (1, 1, 1, 1, 1) and mask.item() is True
    assert foreground_mse(first, target, mask).item() == pytest.approx(0.81)
    assert foreground_mse(second, target, mask).item() == pytest.approx(0.16)


def test_an_unsure_foreground_is_no_dispute():
    first, second, target = voxel(0.45, 0.55), voxel(0.6, 0.4), torch.zeros(1, 1, 1, 1, 1)
    mask = disagreement(first, second)
    assert mask.item() is False
    first.requires_grad_()
    loss = foreground_mse(first, target, mask)
    loss.backward()
    assert loss.item() == 0.0 and not first.grad.any()


def test_two_foreground_classes_in_dispute():
    first, second = voxel(0.1, 0.8, 0.1), voxel(0.1, 0.1, 0.8)
    mask = disagreement(first, second)
    assert mask.item() is True and not disagreement(first, first).any()
    value = foreground_mse(first, torch.full((1, 1, 1, 1, 1), 2), mask)
    assert value.item() == pytest.approx((0.8**2 + 0.9**2) / 2)


def test_mean_over_the_masked_voxels():
    z = torch.randn(2, 3, 4, 5, dtype=torch.float64).requires_grad_()
    target = torch.randint(0, 3, (2, 1, 4, 5))
    mask = torch.zeros(2, 1, 4, 5, dtype=torch.bool)
    mask[1, :, 2:] = True
    torch.testing.assert_close(
        foreground_mse(z, target, mask), foreground_mse(z[1:, :, 2:], target[1:, :, 2:], mask[1:, :, 2:])
    )
    (gradient,) = torch.autograd.grad(foreground_mse(z, target, mask), z)
    assert not gradient[0].any() and gradient[1, :, 2:].abs().min() > 0


# ---- Dice


def test_squared_dice_of_undecided_logits():
    target = torch.zeros(1, 1, 4, 4, 4)
    target.view(-1)[:16] = 1
    value = squared_dice(torch.zeros(1, 2, 4, 4, 4), target)
    assert value.item() == pytest.approx(0.5, abs=1e-6)
    total = squared_dice_ce(torch.zeros(1, 2, 4, 4, 4), target)
    assert total.item() == pytest.approx(0.5 + math.log(2), abs=1e-6)


def test_squared_dice_is_a_mean_over_foreground_classes_of_the_whole_batch():
    z = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    target = torch.randint(0, 3, (2, 1, 5, 6))
    p = z.softmax(1)
    dice = []
    for c in (1, 2):
        truth = (target[:, 0] == c).double()
        dice.append((2 * (p[:, c] * truth).sum() + 1e-5) / ((p[:, c] ** 2).sum() + truth.sum() + 1e-5))
    torch.testing.assert_close(squared_dice(z, target), 1 - sum(dice) / 2)


def test_squared_dice_ce_leaves_out_what_does_not_count():
    z = torch.randn(2, 3, 4, 6, dtype=torch.float64).requires_grad_()
    target = torch.randint(0, 3, (2, 1, 4, 6))
    valid = torch.ones_like(target, dtype=torch.bool)
    valid[..., 3:] = False
    target[..., 3:] = 9
    value = squared_dice_ce(z, target, valid)
    torch.testing.assert_close(value, squared_dice_ce(z[..., :3], target[..., :3]))
    (gradient,) = torch.autograd.grad(value, z)
    assert not gradient[..., 3:].any() and gradient[..., :3].abs().min() > 0


def test_perfect_and_empty_predictions():
    target = torch.zeros(1, 1, 4, 4)
    target[..., :2] = 1
    z = torch.stack([1 - target[:, 0], target[:, 0]], 1) * 1000
    assert squared_dice_ce(z, target).item() == pytest.approx(0.0, abs=1e-6)
    assert squared_dice(-z, target).item() == pytest.approx(1.0, abs=1e-6)
    nothing = squared_dice(z.half(), target, torch.zeros_like(target))
    assert nothing.item() == 0.0 and nothing.dtype == torch.float32
