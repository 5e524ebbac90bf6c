"""The constrained consistency: closed forms, optimality conditions, and the ascent of its multipliers."""

from __future__ import annotations

import math

import pytest
import torch
from monai.losses import DiceLoss
from torch import Tensor, nn

from nnunet_ssl.losses.lagrangian import (
    PAPER_WEIGHTS,
    LagrangeMultipliers,
    add_norm_gradient,
    bound_excess,
    brier_score,
    class_volumes,
    default_class_weights,
    dice_cross_entropy_consistency,
    equality_term,
    frequency_class_weights,
    inequality_term,
    squared_norm,
)
from nnunet_ssl.losses.released_ldc import image_contrast, released_ldc


def rows() -> Tensor:
    """(1, 1, 4, 4): the first row is class 1, the second class 2, the rest background."""
    target = torch.zeros(1, 1, 4, 4, dtype=torch.long)
    target[..., 0, :], target[..., 1, :] = 1, 2
    return target


def one_hot(target: Tensor, classes: int) -> Tensor:
    return nn.functional.one_hot(target[:, 0], classes).movedim(-1, 1)


def random(classes: int = 3, batch: int = 2, size: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(batch, classes, size, size, generator=g, dtype=torch.float64)
    target = torch.randint(0, classes, (batch, 1, size, size), generator=g)
    return logits.requires_grad_(), target, torch.rand(batch, 1, size, size, generator=g) < 0.7


# ---- the objective


def test_value_for_undecided_logits():
    logits, target = torch.zeros(1, 3, 4, 4), rows()
    loss = dice_cross_entropy_consistency(logits, target)
    # CE is ln 3; each class has a Dice of (2 * 4 / 3) / (16 / 3 + 4) = 2 / 7
    assert loss.item() == pytest.approx(0.3 * math.log(3) + 0.5 * 5 / 7, abs=1e-5) == pytest.approx(0.686727, abs=1e-5)
    predicted, expected = class_volumes(logits, target)
    torch.testing.assert_close(predicted - expected, torch.full((2,), 1 / 12))


def test_weights_of_the_classes():
    assert default_class_weights(2) == PAPER_WEIGHTS and sum(PAPER_WEIGHTS) == pytest.approx(1)
    assert PAPER_WEIGHTS[0] == pytest.approx(0.9989 * 0.1 * math.pi, abs=1e-7)
    assert default_class_weights(4) == (0.25,) * 4 and default_class_weights(1) == (1.0,)
    rare = frequency_class_weights([2300, 100])
    assert rare[1] / rare[0] == pytest.approx(PAPER_WEIGHTS[1] / PAPER_WEIGHTS[0], rel=2e-3) and sum(rare) == 1
    assert frequency_class_weights([0, 16, 1]) == pytest.approx((0.4, 0.2, 0.4))
    logits, target, _ = random()
    first, second = (
        dice_cross_entropy_consistency(logits, target, w, alpha=0.0).item() for w in ((1.0, 0.0), (0.0, 1.0))
    )
    both = dice_cross_entropy_consistency(logits, target, alpha=0.0).item()
    assert both == pytest.approx(PAPER_WEIGHTS[0] * first + PAPER_WEIGHTS[1] * second)
    with pytest.raises(ValueError, match="3 class weights for 2"):
        dice_cross_entropy_consistency(logits, target, (1.0, 1.0, 1.0))


def test_the_dice_is_that_of_each_sample_as_monai_has_it():
    logits, target, _ = random()
    monai = DiceLoss(include_background=False, softmax=True, smooth_nr=1e-5, smooth_dr=1e-5, weight=[0.2, 0.8])
    expected = monai(logits, one_hot(target, 3)) * 2  # MONAI averages over classes
    loss = dice_cross_entropy_consistency(logits, target, (0.2, 0.8), alpha=0.0)
    torch.testing.assert_close(2 * loss, expected)
    cross_entropy = nn.functional.cross_entropy(logits, target[:, 0])
    torch.testing.assert_close(dice_cross_entropy_consistency(logits, target, (0.0, 0.0), 1.0), cross_entropy)


def test_summed_form_of_equation_2_differs_by_a_constant():
    p, y = torch.tensor([0.8, 0.4], dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)
    dice, printed = 2 * (p * y).sum() / (p.sum() + y.sum()), (p * y).sum() / (p.sum() + y.sum())
    assert dice.item() == pytest.approx(0.727273, abs=1e-6) and printed.item() == pytest.approx(0.363636, abs=1e-6)
    logits, target = torch.log(torch.stack((1 - p, p)))[None], y.long().view(1, 1, 2)
    for weight in (1.0, 0.4):
        loss = dice_cross_entropy_consistency(logits, target, (weight,), alpha=0.0)
        # up to the smoothing of 1e-5
        assert (loss + weight * printed).item() == pytest.approx(0.5 * weight, abs=1e-5)


def test_voxel_form_is_the_printed_one():
    logits, target, _ = random()
    p, y = logits.softmax(1)[:, 1:], one_hot(target, 3)[:, 1:]
    w = torch.tensor(PAPER_WEIGHTS, dtype=torch.float64).view(1, 2, 1, 1)
    expected = -(w * y * p / (y + p + 1e-5)).sum() / target.numel()
    loss = dice_cross_entropy_consistency(logits, target, alpha=0.0, dice_form="voxel")
    torch.testing.assert_close(loss, expected)
    with pytest.raises(ValueError, match="dice_form must be one of summed, voxel"):
        dice_cross_entropy_consistency(logits, target, dice_form="pixel")


def test_printed_equation_on_sigmoids_does_not_see_background():
    """Why H runs over all classes: without target, Eq. 2 as printed has no gradient, and ours pushes down."""
    z = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    p, y = z.sigmoid(), torch.zeros(4, dtype=torch.float64)
    (printed,) = torch.autograd.grad(-(0.3 * y * p.log() + 0.7 * y * p / (y + p)).mean(), z)
    assert not printed.any()
    for regions, shape in ((True, (1, 1, 4)), (False, (1, 2, 4))):
        logits = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        target = torch.zeros(1, 1, 4, dtype=torch.long)
        (ours,) = torch.autograd.grad(dice_cross_entropy_consistency(logits, target, regions=regions), logits)
        assert (ours[:, -1] > 0).all()


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("form", ["summed", "voxel"])
def test_masked_voxels_have_no_part(regions, form):
    logits, target, mask = random()
    if regions:
        target = one_hot(target, 3)
    for function in (
        lambda z, y, m: dice_cross_entropy_consistency(z, y, (1.0,) * (2 + regions), mask=m, regions=regions,
                                                       dice_form=form),
        lambda z, y, m: brier_score(z, y, m, regions=regions),
        lambda z, y, m: class_volumes(z, y, m, regions=regions)[0].sum(),
        lambda z, y, m: bound_excess(z, 0.2, 0.8, mask=m, regions=regions)[0],
    ):  # fmt: skip
        loss = function(logits, target, mask)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert not gradient[~mask.expand_as(logits)].any() and gradient.any()
        garbage = torch.where(mask, target, 77)
        assert torch.equal(function(logits, garbage, mask), loss)
        # of one sample, what counts could as well be a list of voxels
        sample = mask[0, 0]
        alone = function(logits[:1, :, sample], target[:1, :, sample], None)
        torch.testing.assert_close(function(logits[:1], target[:1], mask[:1]), alone)
        nothing = function(logits, target, torch.zeros_like(mask))
        assert nothing.item() in (0.0, -1e-4) and not torch.autograd.grad(nothing, logits)[0].any()


def test_regions_are_binary_problems():
    z = torch.zeros(1, 2, 4, dtype=torch.float64)
    y = torch.tensor([[[1, 1, 0, 0], [1, 0, 0, 0]]])
    loss = dice_cross_entropy_consistency(z, y, regions=True)
    dice = [(2 * 1.0) / (2 + 2), (2 * 0.5) / (2 + 1)]
    w = PAPER_WEIGHTS
    expected = 0.3 * math.log(2) + 0.5 * (w[0] * (1 - dice[0]) + w[1] * (1 - dice[1]))
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    predicted, volume = class_volumes(z, y, regions=True)
    assert predicted.tolist() == [0.5, 0.5] and volume.tolist() == [0.5, 0.25]
    assert brier_score(z, y, regions=True).item() == 0.25


def test_brier_score():
    assert brier_score(torch.zeros(1, 3, 4, 4), rows()).item() == pytest.approx(2 / 9)
    logits, target, _ = random()
    expected = torch.square(logits.softmax(1) - one_hot(target, 3)).mean()
    torch.testing.assert_close(brier_score(logits, target), expected)


def test_half_precision_is_evaluated_in_float32_and_wrong_shapes_are_refused():
    logits, target, mask = random()
    half = logits.detach().half()
    for function in (dice_cross_entropy_consistency, brier_score):
        assert torch.equal(function(half, target, mask=mask), function(half.float(), target, mask=mask))
    with pytest.raises(ValueError, match="target must have the shape"):
        dice_cross_entropy_consistency(logits, target[:, 0])
    with pytest.raises(ValueError, match="mask must have the shape"):
        class_volumes(logits, target, mask[:1])


# ---- the released form


@pytest.mark.parametrize("multiplier, expected", [(0, 0.607944), (1, 0.774611), (-1, 0.441277)])
def test_released_loss(multiplier, expected):
    found = released_ldc(torch.zeros(1, 3, 4, 4), one_hot(rows(), 3), multiplier)
    assert found.loss.item() == pytest.approx(expected, abs=1e-6)
    values = [found.bce, *found.dice, found.mse, found.excess]
    assert [v.item() for v in values] == pytest.approx([0.693147, 0.666667, 0.666667, 0.333333, 0.166667], abs=1e-5)


def test_released_loss_of_regions_and_of_what_counts():
    logits, target = torch.randn(2, 4, 6, 6), torch.rand(2, 4, 6, 6) < 0.3
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool)
    mask[:, :, :2] = False
    inside = released_ldc(logits[:, :, 2:], target[:, :, 2:], 0.7, foreground=range(4))
    found = released_ldc(logits, target, 0.7, mask, foreground=range(4))
    for mine, theirs in zip(found, inside, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert len(found.dice) == 4 and len(released_ldc(logits, target).dice) == 3


def test_contrast_of_unrelated_images():
    eye = torch.eye(3, dtype=torch.float64).view(3, 3, 1, 1)
    expected = math.log1p(2 * math.exp(-1 / 0.07))
    assert image_contrast(eye, 5 * eye).item() == pytest.approx(expected, rel=1e-6)
    assert image_contrast(torch.ones(4, 2, 3, 3), torch.ones(4, 2, 3, 3)).item() == pytest.approx(math.log(4))
    labeled, unlabeled = torch.randn(2, 2, 3, 3).requires_grad_(), torch.randn(5, 2, 3, 3).requires_grad_()
    image_contrast(unlabeled, labeled).backward()
    assert labeled.grad.any() and unlabeled.grad is None
    assert image_contrast(unlabeled[:1], labeled).isfinite()


@pytest.mark.parametrize("y, z, p", [(0.0, -0.3162, 0.4216), (1.0, 1.1767, 0.7644)])
def test_squared_error_of_logits_spoils_the_calibration_and_the_brier_score_does_not(y, z, p):
    optimum = {}
    for name in ("released", "ours"):
        logit = torch.zeros(1, 3, 1, dtype=torch.float64, requires_grad=True)
        target = torch.full((1, 3, 1), y, dtype=torch.float64)
        for _ in range(600):
            if name == "released":  # without its Dice
                terms = released_ldc(logit, target)
                loss = 0.3 * terms.bce + 0.2 * terms.mse
            else:
                cross_entropy = dice_cross_entropy_consistency(logit, target, (0.0,) * 3, regions=True)
                loss = cross_entropy + 0.2 * brier_score(logit, target, regions=True)
            (gradient,) = torch.autograd.grad(loss, logit)
            logit.data -= 10 * gradient
        optimum[name] = logit[0, 0, 0].item()
    assert optimum["released"] == pytest.approx(z, abs=1e-4)
    assert 1 / (1 + math.exp(-optimum["released"])) == pytest.approx(p, abs=1e-4)
    assert abs(1 / (1 + math.exp(-optimum["ours"])) - y) < 0.01


# ---- constraints


def test_the_mean_over_all_channels_of_a_softmax_is_no_constraint():
    logits, target, _ = random()
    predicted = logits.softmax(1).mean()
    assert predicted.item() == pytest.approx(1 / 3)
    assert torch.autograd.grad(predicted, logits)[0].abs().max() < 1e-12
    ours, _ = class_volumes(logits, target)
    assert torch.autograd.grad(ours[0], logits)[0].abs().max() > 1e-3


def test_the_target_volume_is_a_constant_and_probabilities_are_never_negative():
    logits, target, _ = random()
    _, expected = class_volumes(logits, target)
    assert not expected.requires_grad
    below = bound_excess(torch.tensor([[[-1e4], [1e4], [0.0]]]), 0.0, 1.0, 0.0)
    assert [b.item() for b in below] == [0.0, 0.0]  # also the bounds 0 and 1


def test_bounds():
    logits = torch.log(torch.tensor([[[0.7, 0.1], [0.3, 0.9]]]))
    above, below = bound_excess(logits, 0.2, 0.8, 0.01)
    assert above.item() == pytest.approx(0.1 / 4 - 0.01) and below.item() == pytest.approx(0.1 / 4 - 0.01)


def test_all_multipliers_zero_leave_value_and_gradient_bit_for_bit():
    logits, target, mask = (t.float() if t.is_floating_point() else t for t in random())
    logits = logits.detach().requires_grad_()
    multipliers = LagrangeMultipliers(2)

    def plain() -> Tensor:
        return dice_cross_entropy_consistency(logits, target, mask=mask)

    predicted, expected = class_volumes(logits, target, mask)
    bounds = bound_excess(logits, 0.2, 0.8, mask=mask)
    lagrangian = plain() + multipliers.volume_term("labeled", predicted - expected)
    lagrangian = lagrangian + multipliers.bound_term("labeled", *bounds)
    assert torch.equal(lagrangian, plain())
    both = [torch.autograd.grad(loss, logits)[0] for loss in (lagrangian, plain())]
    assert torch.equal(*both)
    weight = torch.randn(3, 3, requires_grad=True)
    weight.grad = torch.randn(3, 3)
    before = weight.grad.clone()
    add_norm_gradient([weight], multipliers.norm_coefficient(torch.tensor(1.0)), torch.tensor(2.0))
    assert torch.equal(weight.grad, before)


def test_multipliers_are_constants_in_the_primal_step_and_no_parameters():
    multipliers = LagrangeMultipliers(2)
    multipliers.volume["labeled"] += torch.tensor([0.1, -0.2])
    error = torch.tensor([0.5, 0.25], requires_grad=True)
    multipliers.volume_term("labeled", error).backward()
    torch.testing.assert_close(error.grad, torch.tensor([0.1, -0.2]))
    assert all(t.dtype == torch.float64 and not t.requires_grad for t in multipliers.state_dict().values())


def test_gradients_of_the_lagrangian():
    logits, target, mask = random(size=3)
    multipliers = LagrangeMultipliers(2, penalty=0.3)
    multipliers.volume["labeled"] += torch.tensor([0.1, -0.2])
    multipliers.upper["labeled"] += 0.5

    def lagrangian(z: Tensor) -> Tensor:
        predicted, expected = class_volumes(z, target, mask)
        constrained = multipliers.volume_term("labeled", predicted - expected)
        constrained = constrained + multipliers.bound_term("labeled", *bound_excess(z, 0.1, 0.6, mask=mask))
        return dice_cross_entropy_consistency(z, target, mask=mask) + constrained

    assert torch.autograd.gradcheck(lagrangian, logits)
    assert torch.autograd.gradcheck(lambda z: brier_score(z, target, mask), logits)
    assert torch.autograd.gradcheck(
        lambda z: dice_cross_entropy_consistency(z, one_hot(target, 3), mask=mask, regions=True), logits
    )


# ---- dual ascent


def test_volume_multiplier_follows_the_error_up_to_its_limit():
    multipliers = LagrangeMultipliers(2)
    error = torch.tensor([1.0, -1.0]) / 12
    for _ in range(10):
        multipliers.ascend_volume("labeled", error)
    expected = torch.tensor([1.0, -1.0], dtype=torch.float64) * 10 * 0.01 / 12
    torch.testing.assert_close(multipliers.volume["labeled"], expected, atol=1e-9, rtol=0)
    assert multipliers.volume["labeled"][0].item() == pytest.approx(0.00833333, abs=1e-8)
    for _ in range(591):
        multipliers.ascend_volume("labeled", error)
    assert multipliers.volume["labeled"].tolist() == [0.5, -0.5]
    assert not multipliers.volume["unlabeled"].any()


def test_multipliers_of_inequalities_are_never_negative():
    multipliers = LagrangeMultipliers(1, bound_limit=0.015)
    for _ in range(3):
        multipliers.ascend_bounds("labeled", torch.tensor(-1.0), torch.tensor(1.0))
        multipliers.ascend_norm(torch.tensor(-1.0))
    assert multipliers.upper["labeled"] == 0 and multipliers.norm == 0
    assert multipliers.lower["labeled"].item() == 0.015
    augmented = LagrangeMultipliers(1, penalty=1.0)
    augmented.ascend_bounds("labeled", torch.tensor(0.2), torch.tensor(-0.2))
    augmented.ascend_norm(torch.tensor(0.5))
    state = [augmented.upper["labeled"].item(), augmented.lower["labeled"].item(), augmented.norm.item()]
    assert state == pytest.approx([0.2, 0.0, 0.5])
    assert augmented.norm_coefficient(torch.tensor(0.25)).item() == pytest.approx(0.75)
    assert augmented.norm_coefficient(torch.tensor(-1.0)).item() == 0.0


@pytest.mark.parametrize(
    "excess, multiplier, value", [(0.2, 0.5, 0.12), (-0.2, 0.5, -0.08), (-1, 0.5, -0.125), (0.2, 0, 0.02)]
)
def test_augmented_term(excess, multiplier, value):
    found = inequality_term(torch.tensor(multiplier), torch.tensor(excess, dtype=torch.float64), 1.0)
    assert found.item() == pytest.approx(value)
    error = torch.tensor([0.5, -1.0])
    assert equality_term(torch.tensor([0.1, 0.1]), error, 2.0).item() == pytest.approx(-0.05 + 1.25)


def test_norm_of_the_weights():
    weights = [torch.randn(4, 3, requires_grad=True), torch.randn(2, 5, requires_grad=True)]
    start = squared_norm(weights)
    assert start.item() == pytest.approx(sum(w.square().sum().item() for w in weights), rel=1e-6)
    budget = 2 * start
    for weight in weights:
        weight.data *= 2
    excess = squared_norm(weights) / budget - 1
    assert excess.item() == pytest.approx(1.0, rel=1e-6)
    multipliers = LagrangeMultipliers(1)
    multipliers.ascend_norm(excess)
    assert multipliers.norm.item() == pytest.approx(0.01)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    add_norm_gradient(weights, multipliers.norm_coefficient(excess), budget)
    expected = torch.autograd.grad(multipliers.norm.float() * sum(w.square().sum() for w in weights) / budget, weights)
    for weight, gradient in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.grad, 1 + gradient)
        torch.testing.assert_close(gradient, 2 * 0.01 * weight.detach() / budget)


def test_state_is_plain_tensors_and_survives():
    first, second = LagrangeMultipliers(3), LagrangeMultipliers(3)
    first.ascend_volume("unlabeled", torch.tensor([1.0, 2.0, -3.0]))
    first.ascend_norm(torch.tensor(2.0))
    state = {name: value.clone() for name, value in first.state_dict().items()}
    assert len(state) == 7 and all(type(t) is Tensor for t in state.values())
    second.load_state_dict(state)
    assert all(torch.equal(value, state[name]) for name, value in second.state_dict().items())
    first.reset()
    assert not any(t.any() for t in first.state_dict().values()) and state["norm"] > 0
    with pytest.raises(ValueError, match="other shapes"):
        LagrangeMultipliers(2).load_state_dict(state)


def test_frozen_multipliers_stay_zero():
    frozen = LagrangeMultipliers(1, step=0.0, bound_step=0.0, norm_step=0.0, penalty=0.5)
    frozen.ascend_volume("labeled", torch.tensor([5.0]))
    frozen.ascend_bounds("labeled", torch.tensor(5.0), torch.tensor(5.0))
    frozen.ascend_norm(torch.tensor(5.0))
    assert not any(multiplier.any() for multiplier in frozen.state_dict().values())


# ---- optimality: free probabilities, one constraint sum p = 1 that is not divided by N


def solve(y: Tensor, alpha: float, beta: float, upper: float, steps: int) -> tuple[Tensor, LagrangeMultipliers]:
    """Primal-dual descent on Eq. 2 in its form per voxel, a mean over voxels, with our multipliers.

    Below 1, ``upper`` bounds the first probability.
    """
    multipliers = LagrangeMultipliers(1, ("all",), step=0.01, limit=5.0, bound_step=0.01 if upper < 1 else 0.0)
    p = torch.full_like(y, 0.25)
    for _ in range(steps):
        p.requires_grad_()
        printed = -(alpha * y * p.log() + beta * y * p / (y + p)).mean()
        error = (p.sum() - 1).view(1)
        above, below = p[0] - upper, torch.zeros(())
        lagrangian = printed + multipliers.volume_term("all", error) + multipliers.bound_term("all", above, below)
        (gradient,) = torch.autograd.grad(lagrangian, p)
        p = (p.detach() - 0.05 * gradient).clamp(1e-9, 1.0)
        multipliers.ascend_volume("all", error)
        multipliers.ascend_bounds("all", above, below)
    return p, multipliers


@pytest.mark.parametrize(
    "y, alpha, beta, upper, solution, multiplier",
    [
        ((1, 1, 0, 0), 0.3, 0.7, 1.0, (0.5, 0.5, 0, 0), (0.6 + 0.7 / 2.25) / 4),
        ((1, 0.5, 0.25, 0.25), 1.0, 0.0, 1.0, (0.5, 0.25, 0.125, 0.125), 0.5),
        ((1, 0.5, 0.25, 0.25), 1.0, 0.0, 0.4, (0.4, 0.3, 0.15, 0.15), 0.416667),
    ],
)
def test_karush_kuhn_tucker(y, alpha, beta, upper, solution, multiplier):
    p, found = solve(torch.tensor(y, dtype=torch.float64), alpha, beta, upper, 4000 if upper < 1 else 2500)
    assert p.tolist() == pytest.approx(list(solution), abs=2e-4)
    assert found.volume["all"].item() == pytest.approx(multiplier, abs=2e-4)
    # at the bound, its multiplier takes what remains of the gradient
    assert found.upper["all"].item() == pytest.approx(0.208333 if upper < 1 else 0.0, abs=2e-4)


def test_a_constrained_volume_is_what_pushes_background_down():
    """1000 free logits, 100 of them foreground; the loss is the one-sided logarithm of Eq. 2 alone."""
    truth = (torch.arange(1000) < 100).double()
    results = {}
    for constrained in (True, False):
        multipliers = LagrangeMultipliers(1, ("all",), step=0.01 if constrained else 0.0)
        z = torch.zeros(1000, dtype=torch.float64)
        for _ in range(20_000 if constrained else 2_000):
            p = z.sigmoid()
            slope = -0.3 * truth * (1 - p) + multipliers.volume["all"] * p * (1 - p)  # of the sum, by hand: it is fast
            z -= 200 / 1000 * slope
            multipliers.ascend_volume("all", (p.mean() - 0.1).view(1))
        p = z.sigmoid()
        results[constrained] = (p[100:].mean().item(), p[:100].mean().item(), multipliers.volume["all"].item())
    background, foreground, multiplier = results[True]
    assert background < 0.01 and foreground > 0.98 and 0 < multiplier <= 0.31
    assert background == pytest.approx(0.0009, abs=2e-4) and multiplier == pytest.approx(0.281, abs=2e-3)
    assert results[False][0] == 0.5 and results[False][1] > 0.98
