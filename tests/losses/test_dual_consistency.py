"""Cosine consistency and the uncertainty-rectified cross-entropy of Dual Networks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_ssl.losses.consistency import cosine_consistency, uncertainty_rectified_cross_entropy
from nnunet_ssl.losses.regions import as_two_classes, for_each_region

BOTH = [cosine_consistency, uncertainty_rectified_cross_entropy]


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def voxel(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)


# ---- cosine


def test_cosine_of_a_pair_of_probabilities():
    a, b = voxel(0.7, 0.2, 0.1).log(), voxel(0.6, 0.3, 0.1).log()
    assert cosine_consistency(a, b).item() == pytest.approx(0.016849, abs=5e-7)
    cosine = torch.nn.functional.cosine_similarity(a.exp(), b.exp(), dim=1)
    assert cosine_consistency(a, b).item() == pytest.approx(1 - cosine.item(), abs=1e-12)


@pytest.mark.parametrize(("classes", "expected"), [(2, 0.292893), (4, 0.5)])
def test_cosine_extremes(classes, expected):
    first, second = torch.zeros(1, classes, 2, 2, 2), torch.zeros(1, classes, 2, 2, 2)
    first[:, 0], second[:, 1] = 1000.0, 1000.0
    assert cosine_consistency(first, second).item() == pytest.approx(1.0)
    assert cosine_consistency(torch.zeros_like(first), first).item() == pytest.approx(expected, abs=1e-6)


def test_cosine_of_equal_logits_is_exactly_zero_without_gradient():
    a = logits(2, 4, 5, 6, 7).float().requires_grad_()
    b = a.detach().clone().requires_grad_()
    loss = cosine_consistency(a, b)
    loss.backward()
    assert loss.item() == 0.0 and not a.grad.any() and not b.grad.any()


def test_cosine_teaches_both():
    a, b = logits(1, 3, 4, 4).requires_grad_(), logits(1, 3, 4, 4, seed=1).requires_grad_()
    cosine_consistency(a, b).backward()
    assert a.grad.abs().min() > 0 and b.grad.abs().min() > 0


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), shift=st.floats(-50, 50))
def test_cosine_invariances(seed, shift):
    a, b = logits(3, 4, 3, 5, seed=seed), logits(3, 4, 3, 5, seed=seed + 1)
    loss = cosine_consistency(a, b)
    generator = torch.Generator().manual_seed(seed)
    samples, rows = torch.randperm(3, generator=generator), torch.randperm(5, generator=generator)
    torch.testing.assert_close(cosine_consistency(b, a), loss)
    torch.testing.assert_close(cosine_consistency(a[samples][..., rows], b[samples][..., rows]), loss)
    torch.testing.assert_close(cosine_consistency(a + shift * logits(3, 1, 3, 5, seed=2), b), loss)
    assert 0.0 < loss.item() < 1.0


# ---- uncertainty


@pytest.mark.parametrize("classes", [2, 4, 5])
def test_undecided_networks_and_certain_teachers(classes):
    zero = torch.zeros(1, classes, 3, 3, 3)
    assert uncertainty_rectified_cross_entropy(zero, zero).item() == pytest.approx(math.log(classes))
    certain = zero.clone()
    certain[:, 1] = 1000.0
    expected = {2: 1.039721, 4: 1.732868}.get(classes, (1 + 1 / classes) * math.log(classes))
    for hard in (False, True):
        value = uncertainty_rectified_cross_entropy(zero, certain, hard_target=hard).item()
        assert value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("hard", [False, True])
def test_an_undecided_student_makes_the_target_irrelevant(temperature, hard):
    value = uncertainty_rectified_cross_entropy(voxel(0, 0), voxel(1, 0), temperature, hard)
    assert value.item() == pytest.approx(0.731303, abs=1e-6)


def test_agreement_is_the_cross_entropy_with_the_target():
    z = voxel(1, 0)
    assert uncertainty_rectified_cross_entropy(z, z).item() == pytest.approx(0.432465, abs=1e-6)
    assert uncertainty_rectified_cross_entropy(z, z, 1.0).item() == pytest.approx(0.582203, abs=1e-6)
    assert uncertainty_rectified_cross_entropy(z, z, hard_target=True).item() == pytest.approx(0.313262, abs=1e-6)


def test_divergence_runs_from_teacher_to_student():
    student, teacher = voxel(0.7, 0.2, 0.1).log(), voxel(0.6, 0.3, 0.1).log()
    target = voxel(*(p**2 / 0.46 for p in (0.6, 0.3, 0.1)))  # temperature 0.5 squares the probabilities
    error = -(target * student).sum().item()
    value = uncertainty_rectified_cross_entropy(student, teacher).item()
    assert value == pytest.approx(math.exp(-0.029149) * error + 0.029149, abs=2e-6)


def test_uncertainty_teaches_the_student_alone():
    student, teacher = logits(1, 3, 4, 4).requires_grad_(), logits(1, 3, 4, 4, seed=1).requires_grad_()
    uncertainty_rectified_cross_entropy(student, teacher).backward()
    assert student.grad.abs().min() > 0 and teacher.grad is None


def test_the_weight_carries_a_gradient_unless_detached():
    student, teacher = voxel(0.3, -0.2, 0.5).requires_grad_(), voxel(1.0, 0.2, -0.4)

    def gradient(**options) -> torch.Tensor:
        loss = uncertainty_rectified_cross_entropy(student, teacher, **options)
        return torch.autograd.grad(loss, student)[0]

    expected, target = teacher.softmax(1), (2 * teacher).softmax(1)
    own = student.softmax(1)
    divergence = (expected * (expected / own).log()).sum()
    error = -(target * own.log()).sum()
    towards_target, towards_teacher = own - target, own - expected
    detached = (-divergence).exp() * towards_target + towards_teacher
    torch.testing.assert_close(gradient(detach_weight=True), detached)
    torch.testing.assert_close(gradient(), detached - (-divergence).exp() * error * towards_teacher)


# ---- what both share


@pytest.mark.parametrize("loss", BOTH)
def test_mask_selects_voxels(loss):
    a, b = logits(2, 3, 4, 4).requires_grad_(), logits(2, 3, 4, 4, seed=1)
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    mask[0, 0, :2] = True
    value = loss(a, b, mask=mask)
    torch.testing.assert_close(value, loss(a[:1, :, :2], b[:1, :, :2]))
    (gradient,) = torch.autograd.grad(value, a)
    assert not gradient[1].any() and not gradient[0, :, 2:].any() and gradient[0, :, :2].abs().min() > 0


@pytest.mark.parametrize("loss", BOTH)
def test_empty_mask_gives_zero_that_is_still_connected(loss):
    a = logits(1, 2, 3, 3).requires_grad_()
    value = loss(a, logits(1, 2, 3, 3, seed=1), mask=torch.zeros(1, 1, 3, 3))
    value.backward()
    assert value.item() == 0.0 and not a.grad.any()


@pytest.mark.parametrize("loss", BOTH)
def test_half_precision_input_is_evaluated_in_float32(loss):
    a, b = 20 * logits(1, 3, 8, 8).half(), 20 * logits(1, 3, 8, 8, seed=1).half()
    value = loss(a, b)
    assert value.dtype == torch.float32 and value.isfinite()
    torch.testing.assert_close(value, loss(a.float(), b.float()))


@pytest.mark.parametrize("loss", BOTH)
def test_certain_and_opposite_networks_stay_finite(loss):
    a, b = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    a[:, 0], b[:, 1] = 1e4, 1e4
    a.requires_grad_()
    value = loss(a, b)
    value.backward()
    assert value.isfinite() and a.grad.isfinite().all()


def test_regions_are_two_classes_each():
    z = logits(2, 3, 4, 5)
    pairs = as_two_classes(z).softmax(1).view(2, 3, 2, 4, 5)
    torch.testing.assert_close(pairs[:, :, 1], z.sigmoid())
    torch.testing.assert_close(pairs[:, :, 0], 1 - z.sigmoid())
    mask = (logits(2, 1, 4, 5, seed=3) > 0).expand(2, 1, 4, 5)
    assert torch.equal(for_each_region(mask, 3).view(2, 3, 4, 5), mask.expand(2, 3, 4, 5))
    # a voxel that both networks take for the background of every region is no disagreement
    nowhere = torch.full((1, 3, 2, 2), -1000.0)
    assert cosine_consistency(as_two_classes(nowhere), as_two_classes(2 * nowhere)).item() == 0.0
