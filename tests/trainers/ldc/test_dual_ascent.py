"""Volume multipliers in a small training with a class of 0.7 % of the image: which way they push."""

from __future__ import annotations

import math
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnunet_ssl.losses.lagrangian import (
    brier_score,
    dice_cross_entropy_consistency,
    relative_volume_error,
    soft_volumes,
)
from nnunet_ssl.trainers.ldc.dual_ascent import LABELED, UNLABELED, DualAscent
from nnunet_ssl.trainers.ldc.settings import LDCHyperparameters
from nnunet_ssl.training.ramps import Ramp

SIZE, STEPS, WARMUP, CONTRAST = 40, 600, 0.05, 0.8
SHARES = (0.043, 0.007)  # of the image that the two classes fill
MARGINS = (9, 3)  # of their centres from the border
TARGETS: Any = SimpleNamespace(foreground=[(1,), (2,)], has_regions=False)


def images(number: int) -> tuple[Tensor, Tensor]:
    """Noise (N, 1, H, W) with a bright large and a dark small disc, and its labels."""
    g = torch.Generator().manual_seed(1)
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    image, label = torch.randn(number, 1, SIZE, SIZE, generator=g), torch.zeros(number, 1, SIZE, SIZE, dtype=torch.long)
    for one in label:
        for k, (share, margin) in enumerate(zip(SHARES, MARGINS, strict=True), 1):
            y, x = torch.randint(margin, SIZE - margin, (2,), generator=g)
            one[0][(rows - y) ** 2 + (columns - x) ** 2 < SIZE**2 * share / math.pi] = k
    return image + CONTRAST * (label == 1) - CONTRAST * (label == 2), label


def network() -> nn.Sequential:
    def block(inputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, 4, 3, padding=1), nn.InstanceNorm2d(4, affine=True), nn.LeakyReLU(0.01)]

    torch.manual_seed(0)
    return nn.Sequential(*block(1), *block(4), *block(4), nn.Conv2d(4, 3, 1))


@cache
def trained(ascent: str) -> tuple[Tensor, Tensor]:
    """(m - s, lambda), (steps behind the warm-up, 2) each, of a training on five labelled images with nnU-Net's SGD."""
    image, label = images(5)
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.99, nesterov=True, weight_decay=3e-5)
    settings = LDCHyperparameters(ascent=ascent, norm_budget=0.0)
    dual = DualAscent(net, optimizer, TARGETS, settings, torch.device("cpu"))
    g, ramp, seen = torch.Generator().manual_seed(3), Ramp(0.3, WARMUP, from_start=True), []
    for step in range(STEPS):
        logits = net(image + 0.3 * torch.randn(image.shape, generator=g))
        dual.begin()
        constraint, _ = dual.constrain(LABELED, logits, label, None)
        loss = dice_cross_entropy_consistency(logits, label) + 0.2 * brier_score(logits, label) + constraint
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 12.0)
        optimizer.step()
        predicted, expected = dual.values[LABELED][:4].view(2, 2)
        dual.values[UNLABELED] = dual.values[LABELED]
        dual.ascend(ramp.at(step / STEPS, STEPS))
        if step >= WARMUP * STEPS:
            seen.append((predicted - expected, dual.multipliers.volume[LABELED].clone()))
    errors, multipliers = zip(*seen, strict=True)
    return torch.stack(errors), torch.stack(multipliers)


def right(ascent: str) -> float:
    """Share of the steps in which the multiplier of the small class has the sign of its volume error."""
    error, multiplier = trained(ascent)
    return (error[:, 1].sign() == multiplier[:, 1].sign()).double().mean().item()


def test_the_multiplier_of_a_rare_class_pushes_the_right_way():
    assert right("relative") >= 0.8
    assert right("plain") < 0.2


def test_both_runs_have_to_do_with_a_class_that_is_predicted_too_small():
    for ascent in ("relative", "plain"):
        assert (trained(ascent)[0][:, 1] < 0).double().mean() > 0.7


# ---- the rule


def ascended(error: float, ramp: float, part: str = LABELED, steps: int = 1, **settings: Any) -> float:
    """The multiplier of the first class with a constant m = s + error, s = 0.1, after so many steps."""
    net = nn.Conv2d(1, 1, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    dual = DualAscent(net, optimizer, TARGETS, LDCHyperparameters(**settings), torch.device("cpu"))
    dual.begin()
    dual.stepped = True
    volumes = torch.tensor([0.1 + error, 0.1, 0.1, 0.1, 1.0], dtype=torch.float64)
    dual.values = dict.fromkeys((LABELED, UNLABELED), volumes)
    for _ in range(steps):
        dual.ascend(ramp)
    return dual.multipliers.volume[part][0].item()


@pytest.mark.parametrize("part, weight", [(LABELED, 0.5), (UNLABELED, 0.5 * 0.25)])
def test_the_step_has_the_weight_of_its_term(part, weight):
    settings = {"constrained_weight": 0.5, "unlabeled_weight": 0.25}
    assert ascended(0.1, 0.0, part, **settings) == 0
    assert ascended(0.1, 1.0, part, **settings) == pytest.approx(0.01 * weight * 0.5)
    assert ascended(-0.05, 0.4, part, **settings) == pytest.approx(0.01 * weight * 0.4 * -0.5)
    assert ascended(0.1, 1.0, part, steps=900, multiplier_limit=0.3) == pytest.approx(0.3)


def test_the_plain_rule_is_that_of_the_equation():
    for ramp in (0.0, 1.0):
        assert ascended(0.1, ramp, LABELED, ascent="plain", constrained_weight=0.5) == pytest.approx(0.01 * 0.1)
        expected = 0.01 * 0.1 if ramp > 0 else 0.0
        assert ascended(0.1, ramp, UNLABELED, ascent="plain", unlabeled_weight=0.5) == pytest.approx(expected)


def test_relative_errors():
    predicted = torch.tensor([0.2, 0.1, 0.007, 0.0, 2e-4, 0.0])
    expected = torch.tensor([0.1, 0.2, 0.0035, 0.007, 0.0, 0.0])
    found = relative_volume_error(predicted, expected)
    torch.testing.assert_close(found, torch.tensor([0.5, -0.5, 0.5, -1.0, 0.2, 0.0]))


def test_soft_volumes_of_classes_and_regions():
    logits = torch.randn(2, 3, 4, 5)
    mask = torch.rand(2, 1, 4, 5) < 0.5
    for regions, probability in ((False, logits.softmax(1)[:, 1:]), (True, logits.sigmoid())):
        wanted = torch.stack([p[mask[:, 0]].mean() for p in probability.unbind(1)])
        torch.testing.assert_close(soft_volumes(logits, mask, regions=regions), wanted)
        torch.testing.assert_close(soft_volumes(logits, regions=regions), probability.mean((0, 2, 3)))
    assert not soft_volumes(logits, torch.zeros_like(mask)).any()


def test_the_teacher_s_soft_volume_is_the_target_and_of_the_plain_rule_its_labels():
    student, teacher = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    label = teacher.argmax(1, keepdim=True)
    for ascent, wanted in (("relative", teacher.softmax(1)[:, 1:].mean((0, 2, 3))), ("plain", None)):
        net = nn.Conv2d(1, 1, 1)
        optimizer = torch.optim.SGD(net.parameters(), 0.0)
        dual = DualAscent(net, optimizer, TARGETS, LDCHyperparameters(ascent=ascent), torch.device("cpu"))
        dual.constrain(UNLABELED, student, label, None, teacher)
        counted = torch.stack([(label == k).double().mean() for k in (1, 2)])
        expected = dual.values[UNLABELED][2:4] / 16
        torch.testing.assert_close(expected, counted if wanted is None else wanted.double(), rtol=1e-5, atol=1e-6)
