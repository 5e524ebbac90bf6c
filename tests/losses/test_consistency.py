from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnunet_ssl.losses.consistency import sigmoid_cross_entropy, sigmoid_mse, softmax_cross_entropy, softmax_mse


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("loss", [softmax_mse, sigmoid_mse])
def test_equal_predictions_give_exactly_zero(loss):
    z = logits(2, 3, 4, 5)
    assert loss(z, z.clone()).item() == 0.0


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_opposite_one_hots_give_two_over_k(classes):
    student, teacher = torch.zeros(1, classes, 2, 2, 2), torch.zeros(1, classes, 2, 2, 2)
    student[:, 0], teacher[:, 1] = 1000.0, 1000.0
    assert softmax_mse(student, teacher).item() == pytest.approx(2 / classes)


def test_closed_form():
    # softmax(0, ln 3) = (1/4, 3/4); softmax(0, 0) = (1/2, 1/2): squared difference 1/16 in both classes
    student = torch.tensor([0.0, 3.0]).log().nan_to_num(neginf=0.0).view(1, 2, 1, 1)
    student[0, 0] = 0.0
    assert softmax_mse(student, torch.zeros(1, 2, 1, 1)).item() == pytest.approx(1 / 16)
    # sigmoid(ln 3) = 3/4 against 1/2 in one of two channels
    assert sigmoid_mse(student, torch.zeros(1, 2, 1, 1)).item() == pytest.approx(1 / 32)


def test_mask_selects_voxels():
    student, teacher = logits(2, 3, 4, 4), logits(2, 3, 4, 4, seed=1)
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    mask[0, 0, :2] = True
    expected = softmax_mse(student[:1, :, :2], teacher[:1, :, :2])
    torch.testing.assert_close(softmax_mse(student, teacher, mask), expected)


def test_empty_mask_gives_zero_that_is_still_connected():
    student = logits(1, 2, 3, 3).requires_grad_()
    loss = softmax_mse(student, logits(1, 2, 3, 3, seed=1), torch.zeros(1, 1, 3, 3))
    loss.backward()
    assert loss.item() == 0.0
    assert student.grad is not None and not student.grad.any()


def test_gradient_reaches_the_student_alone():
    student, teacher = logits(1, 3, 4, 4).requires_grad_(), logits(1, 3, 4, 4, seed=1).requires_grad_()
    softmax_mse(student, teacher).backward()
    assert student.grad is not None and student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_half_precision_input_is_evaluated_in_float32():
    student, teacher = logits(1, 3, 8, 8).half(), logits(1, 3, 8, 8, seed=1).half()
    loss = softmax_mse(student, teacher)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, softmax_mse(student.float(), teacher.float()))


@given(seed=st.integers(0, 1000), shift=st.floats(-50, 50))
def test_softmax_distance_ignores_a_shift_of_all_logits_and_is_symmetric(seed, shift):
    student, teacher = logits(1, 4, 3, 3, seed=seed), logits(1, 4, 3, 3, seed=seed + 1)
    loss = softmax_mse(student, teacher)
    torch.testing.assert_close(softmax_mse(student + shift, teacher), loss, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(softmax_mse(teacher, student), loss)
    assert 0.0 <= loss.item() <= 2 / 4


# ---- cross-entropy with the teacher's probabilities (PLGCL, Eq. 6)


def test_cross_entropy_with_oneself_is_the_entropy():
    z = logits(2, 3, 4, 5)
    p = z.softmax(1)
    assert softmax_cross_entropy(z, z).item() == pytest.approx(-(p * p.log()).sum(1).mean().item(), rel=1e-6)
    p = z.sigmoid()
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).mean().item()
    assert sigmoid_cross_entropy(z, z).item() == pytest.approx(entropy, rel=1e-6)


def test_cross_entropy_closed_form():
    student = torch.tensor([0.0, math.log(3.0)]).view(1, 2, 1, 1)  # (1/4, 3/4); as sigmoids (1/2, 3/4)
    teacher = torch.tensor([0.0, math.log(4.0)]).view(1, 2, 1, 1)  # (1/5, 4/5); as sigmoids (1/2, 4/5)
    expected = 0.2 * math.log(4) + 0.8 * math.log(4 / 3)
    assert softmax_cross_entropy(student, teacher).item() == pytest.approx(expected)
    assert softmax_cross_entropy(student, teacher, hard=True).item() == pytest.approx(math.log(4 / 3))
    second = 0.8 * math.log(4 / 3) + 0.2 * math.log(4)
    assert sigmoid_cross_entropy(student, teacher).item() == pytest.approx((math.log(2) + second) / 2)
    hard = (math.log(2) + math.log(4 / 3)) / 2
    assert sigmoid_cross_entropy(student, teacher, hard=True).item() == pytest.approx(hard)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("loss", [softmax_cross_entropy, sigmoid_cross_entropy])
def test_cross_entropy_reaches_the_masked_student_alone(loss, hard):
    student, teacher = logits(2, 3, 4, 4).requires_grad_(), logits(2, 3, 4, 4, seed=1).requires_grad_()
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    mask[0, 0, :2] = True
    value = loss(student, teacher, mask, hard=hard)
    assert value.item() == pytest.approx(loss(student[:1, :, :2], teacher[:1, :, :2], hard=hard).item())
    assert loss(student.half(), teacher.half(), mask, hard=hard).dtype == torch.float32
    value.backward()
    inside = mask.expand_as(student)
    assert teacher.grad is None and student.grad[inside].all() and not student.grad[~inside].any()
    empty = loss(student, teacher, torch.zeros_like(mask), hard=hard)
    assert empty.item() == 0.0 and empty.requires_grad
