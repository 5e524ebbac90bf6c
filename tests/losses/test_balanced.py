from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nnunet_ssl.losses.balanced import (
    balanced_dice_ce,
    dice_ce,
    keep_probabilities,
    sample_keep_mask,
    scheduled_keep_probabilities,
    weighted_dice,
)

SHAPE = (2, 1, 5, 6)
CLASSES = 4
seeds = st.integers(0, 1000)
few = settings(max_examples=25, deadline=None, derandomize=True)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem(seed: int = 0, kept: float = 0.5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random logits (float64), target and mask."""
    g = generator(seed)
    logits = 2 * torch.randn(SHAPE[0], CLASSES, *SHAPE[2:], generator=g, dtype=torch.float64)
    target = torch.randint(CLASSES, SHAPE, generator=g)
    return logits, target, torch.rand(SHAPE, generator=g) < kept


def gradient(loss, logits: torch.Tensor, *args, **options) -> torch.Tensor:
    leaf = logits.clone().requires_grad_()
    loss(leaf, *args, **options).backward()
    assert leaf.grad is not None
    return leaf.grad


def by_definition(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus 1 - Dice by way of the whole one-hot."""
    one_hot = F.one_hot(target[:, 0], logits.shape[1]).movedim(-1, 1).to(logits.dtype)
    p, axes = logits.softmax(1), [0, *range(2, logits.ndim)]
    dice = (2 * (p * one_hot).sum(axes) + 1) / (p.sum(axes) + one_hot.sum(axes) + 1 + 1e-8)
    return -(one_hot * p.log()).sum(1).mean() + 1 - dice[1:].mean()


def masked_logits_form(logits: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The loss of masked logits against masked labels, which the closed form replaces."""
    return by_definition(logits * mask, target * mask)


def constant(mask: torch.Tensor, classes: int) -> float:
    return (1 - mask.double().mean().item()) * math.log(classes)


# ---- numbers


def test_dice_ce_of_zero_logits():
    target = torch.repeat_interleave(torch.arange(4), torch.tensor([39, 16, 8, 1])).view(1, 1, 4, 4, 4)
    value = dice_ce(torch.zeros(1, 4, 4, 4, 4), target).item()
    assert value == pytest.approx(1.386294 + 0.814646, abs=1e-5)
    assert value == pytest.approx(2.200941, abs=1e-5)
    # without smoothing and as -dice: nnU-Net's own loss
    assert dice_ce(torch.zeros(1, 4, 4, 4, 4), target, smooth=0.0).item() - 1 == pytest.approx(1.237602, abs=1e-5)


def test_balanced_loss_of_four_voxels():
    logits, target = torch.zeros(1, 3, 4), torch.tensor([0, 0, 1, 2]).view(1, 1, 4)
    mask = torch.tensor([0, 1, 1, 1]).view(1, 1, 4)
    value = balanced_dice_ce(logits, target, mask).item()
    assert value == pytest.approx(1.323959, abs=1e-5)
    assert value + constant(mask, 3) == pytest.approx(1.598612, abs=1e-5)
    assert masked_logits_form(logits, target, mask).item() == pytest.approx(1.598612, abs=1e-5)
    assert balanced_dice_ce(logits, target, mask, dice_offset=False).item() == pytest.approx(1.268404, abs=1e-5)


@pytest.mark.parametrize("offset, dice", [(True, 1 - 1 / (32768 / 14 + 1)), (False, 0.0)])
def test_with_every_voxel_dropped_nothing_is_learned(offset, dice):
    logits = torch.randn(2, 14, 16, 32, 32, generator=generator())
    target = torch.randint(14, (2, 1, 16, 32, 32), generator=generator())
    mask = torch.zeros_like(target)
    value = balanced_dice_ce(logits, target, mask, dice_offset=offset).item()
    assert value == pytest.approx(dice, abs=1e-6)
    assert not gradient(balanced_dice_ce, logits, target, mask, dice_offset=offset).any()
    if offset:
        assert value + math.log(14) == pytest.approx(3.638630, abs=1e-5)


def test_perfect_prediction_costs_nothing():
    _, target, mask = problem()
    logits = 100.0 * F.one_hot(target[:, 0], CLASSES).movedim(-1, 1).float()
    assert dice_ce(logits, target).item() == pytest.approx(0.0, abs=1e-6)
    assert balanced_dice_ce(logits, target, mask, dice_offset=False).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("shape", [(2, 1, 7), (3, 1, 5, 6), (1, 1, 3, 4, 5)])
def test_dice_ce_is_its_definition_in_every_dimension(shape):
    logits = torch.randn(shape[0], CLASSES, *shape[2:], generator=generator(), dtype=torch.float64)
    target = torch.randint(CLASSES - 1, shape, generator=generator(1))  # the last class is absent
    torch.testing.assert_close(dice_ce(logits, target), by_definition(logits, target))
    torch.testing.assert_close(gradient(dice_ce, logits, target), gradient(by_definition, logits, target))


def test_a_large_batch_is_summed_without_loss_of_digits():
    # 2^20 voxels, 0.1 each: added one by one to a float32, the sum is off in its third digit
    shape = (1, 1, 64, 128, 128)
    target = (torch.arange(64 * 128 * 128).view(shape) % 2 == 0).long()
    logits = torch.zeros(1, 2, *shape[2:])
    logits[:, 0] = math.log(9)  # p_1 = 0.1
    n = target.numel()
    expected = -(math.log(0.1) + math.log(0.9)) / 2 + 1 - (0.1 * n + 1) / (0.1 * n + n / 2 + 1)
    assert dice_ce(logits, target).item() == pytest.approx(expected, abs=2e-6)


# ---- the closed form of the masked-logits loss


@few
@given(seed=seeds, kept=st.sampled_from([0.02, 0.5, 0.98]))
def test_value_and_gradient_are_those_of_masked_logits(seed, kept):
    logits, target, mask = problem(seed, kept)
    closed = balanced_dice_ce(logits, target, mask)
    released = masked_logits_form(logits, target, mask)
    assert closed.item() + constant(mask, CLASSES) == pytest.approx(released.item(), abs=1e-12)
    difference = gradient(balanced_dice_ce, logits, target, mask) - gradient(masked_logits_form, logits, target, mask)
    assert difference.abs().max() < 1e-16


def test_gradient_without_offset_is_that_of_finite_differences():
    logits, target, mask = problem()
    assert torch.autograd.gradcheck(
        lambda z: balanced_dice_ce(z, target[:1, :, :2, :3], mask[:1, :, :2, :3], dice_offset=False),
        logits[:1, :, :2, :3].clone().requires_grad_(),
    )


@few
@given(seed=seeds, scale=st.floats(-1e4, 1e4))
def test_logits_and_labels_of_dropped_voxels_do_not_matter(seed, scale):
    logits, target, mask = problem(seed)
    other = torch.where(mask, logits, logits * scale)
    label = torch.where(mask, target, (target + 1) % CLASSES)
    assert balanced_dice_ce(other, label, mask).item() == balanced_dice_ce(logits, target, mask).item()
    grad = gradient(balanced_dice_ce, other, label, mask)
    dropped = ~mask.expand_as(logits)
    assert not grad[dropped].any()
    assert grad[~dropped].all()


def test_with_every_voxel_kept_it_is_dice_ce():
    logits, target, _ = problem()
    assert balanced_dice_ce(logits, target, torch.ones(SHAPE)).item() == dice_ce(logits, target).item()


def test_a_kept_voxel_weighs_as_much_as_without_a_mask():
    # far from saturation and with the Dice switched off by its smoothing, the gradient is that of the cross-entropy
    logits, target, mask = problem()
    plain = gradient(dice_ce, logits, target, smooth=1e12)
    kept = gradient(balanced_dice_ce, logits, target, mask, smooth=1e12)
    torch.testing.assert_close(kept, plain * mask, atol=1e-11, rtol=0)


# ---- invariances


@few
@given(seed=seeds)
def test_voxels_and_samples_are_exchangeable(seed):
    logits, target, mask = problem(seed)
    order = torch.randperm(target.numel(), generator=generator(seed))
    shuffled = [t.movedim(1, -1).reshape(-1, t.shape[1])[order].T.reshape(1, t.shape[1], 3, 20)
                for t in (logits, target, mask)]  # fmt: skip
    torch.testing.assert_close(balanced_dice_ce(*shuffled), balanced_dice_ce(logits, target, mask))
    torch.testing.assert_close(dice_ce(*shuffled[:2]), dice_ce(logits, target))


@few
@given(seed=seeds, shift=st.floats(-50, 50))
def test_a_shift_of_all_logits_of_a_voxel_does_not_matter(seed, shift):
    logits, target, mask = problem(seed)
    shifted = logits + shift * torch.rand(SHAPE, generator=generator(seed), dtype=torch.float64)
    torch.testing.assert_close(balanced_dice_ce(shifted, target, mask), balanced_dice_ce(logits, target, mask))


@few
@given(seed=seeds)
def test_foreground_classes_are_exchangeable(seed):
    logits, target, mask = problem(seed)
    names = torch.tensor([0, 2, 3, 1])
    renamed = balanced_dice_ce(logits[:, names.argsort()], names[target], mask)
    torch.testing.assert_close(renamed, balanced_dice_ce(logits, target, mask))


# ---- voxels that do not count


@few
@given(seed=seeds, outside=st.sampled_from([-1, CLASSES, 255]))
def test_voxels_that_do_not_count_are_as_good_as_cropped(seed, outside):
    logits, target, mask = problem(seed)
    valid = torch.ones(SHAPE, dtype=torch.bool)
    valid[..., 4:] = False
    marked = torch.where(valid, target, outside)
    inside = [t[..., :4] for t in (logits, target, mask)]
    torch.testing.assert_close(dice_ce(logits, marked, valid=valid), dice_ce(*inside[:2]))
    torch.testing.assert_close(balanced_dice_ce(logits, marked, mask, valid), balanced_dice_ce(*inside))
    grad = gradient(balanced_dice_ce, logits, marked, mask, valid)
    torch.testing.assert_close(grad[..., :4], gradient(balanced_dice_ce, *inside))
    assert not grad[..., 4:].any()


def test_none_valid_gives_zero_that_is_still_connected():
    logits, target, mask = problem()
    valid = torch.zeros(SHAPE)
    for loss, arguments in ((dice_ce, ()), (balanced_dice_ce, (mask,))):
        assert loss(logits.float(), target, *arguments, valid=valid).item() == 0.0
        assert not gradient(loss, logits, target, *arguments, valid=valid).any()


# ---- precision, input


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_input_is_evaluated_in_float32(dtype):
    logits, target, mask = problem()
    half = logits.to(dtype)
    for loss, arguments in ((dice_ce, (target,)), (balanced_dice_ce, (target, mask))):
        value = loss(half, *arguments)
        assert value.dtype == torch.float32
        assert value.item() == loss(half.float(), *arguments).item()
        grad = gradient(loss, half, *arguments)
        assert grad.dtype == dtype
        torch.testing.assert_close(grad, gradient(loss, half.float(), *arguments).to(dtype))


def test_masks_and_targets_of_any_dtype():
    logits, target, mask = problem()
    expected = balanced_dice_ce(logits, target, mask, torch.ones_like(mask)).item()
    for dtype in (torch.uint8, torch.int16, torch.float32):
        arguments = target.to(dtype), mask.to(dtype), torch.ones(SHAPE, dtype=dtype)
        assert balanced_dice_ce(logits, *arguments).item() == expected


def test_wrong_shapes_are_refused():
    logits, target, mask = problem()
    with pytest.raises(ValueError, match="target"):
        dice_ce(logits, target.expand(-1, 2, -1, -1))  # regions
    with pytest.raises(ValueError, match="keep_mask"):
        balanced_dice_ce(logits, target, mask[:1])
    with pytest.raises(ValueError, match="valid"):
        balanced_dice_ce(logits, target, mask, mask[:, 0])


# ---- keep probabilities


def test_keep_probabilities_of_known_counts():
    counts = torch.tensor([10**6, 5 * 10**4, 2000, 500])
    keep = keep_probabilities(counts)
    torch.testing.assert_close(keep, torch.tensor([5e-4, 1e-2, 0.25, 1.0]))
    torch.testing.assert_close(counts * keep, torch.full((4,), 500.0))
    assert keep[3].item() == 1.0


def test_classes_without_voxels_are_left_out():
    torch.testing.assert_close(keep_probabilities(torch.tensor([1000, 0, 10])), torch.tensor([0.01, 1.0, 1.0]))
    assert keep_probabilities(torch.zeros(3)).tolist() == [1.0, 1.0, 1.0]


@few
@given(counts=st.lists(st.integers(1, 10**12), min_size=2, max_size=6), factor=st.integers(1, 1000))
def test_expected_kept_voxels_are_equal_and_the_unit_of_counting_does_not_matter(counts, factor):
    voxels = torch.tensor(counts)
    keep = keep_probabilities(voxels)
    assert keep.dtype == torch.float32
    torch.testing.assert_close(keep.double() * voxels, torch.full_like(keep, min(counts)).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(keep_probabilities(voxels * factor), keep)


def test_schedule_runs_from_one_to_the_keep_probability():
    keep = torch.tensor([5e-4, 1e-2, 0.25, 1.0])
    halfway = scheduled_keep_probabilities(keep, 0.5)
    torch.testing.assert_close(halfway, torch.tensor([0.50025, 0.505, 0.625, 1.0]))
    assert torch.equal(scheduled_keep_probabilities(keep, 0.0), torch.ones(4))
    assert torch.equal(scheduled_keep_probabilities(keep, 1.0), keep)
    assert torch.equal(scheduled_keep_probabilities(keep, -1.0), torch.ones(4))
    assert torch.equal(scheduled_keep_probabilities(keep, 2.0), keep)


@few
@given(progress=st.floats(0, 1))
def test_schedule_stays_within_its_ends(progress):
    keep = torch.tensor([1e-6, 0.25, 1.0])
    now = scheduled_keep_probabilities(keep, progress)
    torch.testing.assert_close(now, 1 - progress * (1 - keep), rtol=1e-5, atol=1e-6)
    assert (now >= keep).all() and (now <= 1).all()
    assert now[2].item() == 1.0


# ---- sampling


@pytest.mark.parametrize("progress", [0.5, 1.0])
def test_rates_are_those_asked_for(progress):
    keep = scheduled_keep_probabilities(torch.tensor([5e-4, 1e-2, 0.25, 1.0]), progress)
    each = 100_000
    target = torch.arange(4).repeat(each).view(1, 1, 100, -1)
    mask = sample_keep_mask(target, keep, generator(3))
    assert mask.dtype == torch.bool and mask.shape == target.shape
    for label, p in enumerate(keep.tolist()):
        rate = mask[target == label].double().mean().item()
        assert abs(rate - p) <= 4 * math.sqrt(p * (1 - p) / each)


def test_the_expected_number_of_kept_voxels_is_the_same_for_every_class():
    counts = torch.tensor([40_000, 10_000, 1000])
    target = torch.repeat_interleave(torch.arange(3), counts).view(1, 1, 100, -1)
    mask = sample_keep_mask(target, keep_probabilities(counts), generator())
    kept = torch.bincount(target[mask], minlength=3)
    assert kept[2] == 1000
    assert ((kept - 1000).abs() <= 4 * math.sqrt(1000)).all()


def test_at_the_start_every_voxel_is_kept():
    target = torch.randint(3, (2, 1, 64, 64, 16), generator=generator())
    start = scheduled_keep_probabilities(torch.tensor([1e-6, 0.1, 1.0]), 0.0)
    assert sample_keep_mask(target, start, generator()).all()
    assert not sample_keep_mask(target, torch.zeros(3), generator()).any()


def test_voxels_are_drawn_anew_and_independently_and_reproducibly():
    target = torch.zeros(1, 1, 100, 100)
    keep = torch.tensor([0.5])
    g = generator()
    first, second = sample_keep_mask(target, keep, g), sample_keep_mask(target, keep, g)
    assert torch.equal(first, sample_keep_mask(target, keep, generator()))
    assert abs((first == second).double().mean().item() - 0.5) < 0.02
    assert abs((first[..., 1:] == first[..., :-1]).double().mean().item() - 0.5) < 0.02


def test_voxels_that_do_not_count_are_dropped():
    target = torch.tensor([0, 1, -1, 255]).view(1, 1, 2, 2)
    valid = torch.tensor([1, 0, 0, 0]).view(1, 1, 2, 2)
    assert sample_keep_mask(target, torch.ones(2), valid=valid).flatten().tolist() == [True, False, False, False]


def test_no_step_needs_a_value_on_the_host():
    # tensors of the meta device have no values: whatever would wait for a GPU raises an error here
    logits = torch.zeros(2, 3, 4, 4, device="meta", requires_grad=True)
    target = torch.zeros(2, 1, 4, 4, device="meta", dtype=torch.int16)
    valid = torch.ones(2, 1, 4, 4, device="meta", dtype=torch.bool)
    keep = scheduled_keep_probabilities(keep_probabilities(torch.ones(3, device="meta")), 0.5)
    mask = sample_keep_mask(target, keep, valid=valid)
    (dice_ce(logits, target, valid=valid) + balanced_dice_ce(logits, target, mask, valid)).backward()
    assert logits.grad is not None and logits.grad.shape == logits.shape


# ---- weights of the classes


def test_dice_of_two_voxels_with_weights():
    """p = (.9, .1), (.3, .7), y = (0, 1): dc = (.875, .85714286), so that 2 (1 - dc_1) = .28571429."""
    logits = torch.tensor([[0.9, 0.3], [0.1, 0.7]], dtype=torch.float64).log().view(1, 2, 1, 2)
    target = torch.tensor([0, 1]).view(1, 1, 1, 2)
    assert weighted_dice(logits, target, torch.tensor([0.0, 2.0])).item() == pytest.approx(2 - 1.71428571, abs=1e-7)
    assert weighted_dice(logits, target, torch.tensor([9.0, 0.0])).item() == 0.0
    more = torch.cat([logits, torch.zeros_like(logits)], 3)
    valid = torch.tensor([True, True, False, False]).view(1, 1, 1, 4)
    padded = weighted_dice(more, torch.tensor([0, 1, 7, -1]).view(1, 1, 1, 4), torch.tensor([0.0, 2.0]), valid)
    assert padded.item() == pytest.approx(2 - 1.71428571, abs=1e-7)


def test_equal_weights_scale_the_gradient_of_the_dice():
    logits, target, valid = problem()
    plain = gradient(dice_ce, logits, target, valid=valid) - gradient(
        lambda z, y, valid: (F.cross_entropy(z, y[:, 0], reduction="none") * valid[:, 0]).sum() / valid.sum(),
        logits, target, valid=valid,
    )  # fmt: skip
    weighted = gradient(weighted_dice, logits, target, torch.full((CLASSES,), 4.0), valid)
    torch.testing.assert_close(weighted, 4 * plain)
