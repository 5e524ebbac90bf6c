"""Query distribution: closed forms, underflow, masks and gradients."""

from __future__ import annotations

import math

import pytest
import torch

from nnunet_ssl.losses.query_distribution import log_query_distribution, query_distribution_loss


def groups(*sizes: int) -> torch.Tensor:
    return torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))


@pytest.mark.parametrize(
    ("sizes", "mass", "loss"),
    [
        ((16, 4, 12), (0.5, 0.125, 0.375), (0.693147, 2.079442, 0.980829)),
        ((16, 4, 108), (0.125, 0.03125, 0.84375), (2.079442, 3.465736, 0.169899)),
    ],
)
def test_equal_responses_share_by_group_size(sizes, mass, loss):
    responses = torch.zeros(1, sum(sizes), 2, 3)
    distribution = log_query_distribution(responses, groups(*sizes)).exp()
    assert distribution.shape == (1, 3, 2, 3)
    torch.testing.assert_close(distribution[0, :, 0, 0], torch.tensor(mass))
    for group, value in enumerate(loss):
        target = torch.full((1, 1, 2, 3), group)
        assert query_distribution_loss(responses, target, groups(*sizes)).item() == pytest.approx(value, abs=1e-6)


def test_released_loss_would_be_a_hundred_thousand():
    # a sum over the voxels of a 96^3 patch at a uniform distribution, with the released weight 0.1
    responses, target = torch.zeros(1, 3, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.long)
    mean = query_distribution_loss(responses, target, torch.arange(3)).item()
    assert 0.1 * 96**3 * mean == pytest.approx(97198, abs=1)


def test_logarithms_where_the_naive_form_underflows():
    responses = torch.zeros(1, 4, 1)
    responses[:, 0] = 200.0
    membership = torch.tensor([0, 0, 1, 1])
    naive = responses.softmax(1)[:, 2:].sum(1).log()
    assert naive.item() == -math.inf
    found = log_query_distribution(responses, membership)[:, 1]
    assert found.item() == pytest.approx(-199.3, abs=0.01)
    loss = query_distribution_loss(responses, torch.ones(1, 1, 1, dtype=torch.long), membership)
    assert loss.item() == pytest.approx(200 - math.log(2), abs=1e-4)


def test_equals_the_naive_form_for_scattered_groups():
    generator = torch.Generator().manual_seed(0)
    responses = torch.randn(2, 5, 3, 4, generator=generator)
    membership = torch.tensor([1, 0, 2, 0, 1])
    assignment = responses.softmax(1)
    naive = torch.stack([assignment[:, membership == g].sum(1) for g in range(3)], 1)
    found = log_query_distribution(responses, membership)
    torch.testing.assert_close(found.exp(), naive, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(2, 3, 4))
    target = torch.randint(0, 3, (2, 1, 3, 4), generator=generator)
    kept = target.clone()
    loss = query_distribution_loss(responses, target, membership)
    torch.testing.assert_close(loss, -naive.log().gather(1, target).mean())
    assert torch.equal(target, kept)
    shift = torch.randn(2, 1, 3, 4, generator=generator)
    torch.testing.assert_close(query_distribution_loss(responses + 5 * shift, target, membership), loss)


def test_mask_and_labels_out_of_range_where_masked():
    responses = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = torch.tensor([[[0, 1, 255]], [[1, -1, 0]]], dtype=torch.int16)
    mask = (target >= 0) & (target < 2)
    membership = groups(3, 1)
    loss = query_distribution_loss(responses, target, membership, mask)
    log_mass = log_query_distribution(responses, membership)
    expected = -(log_mass[0, 0, 0] + log_mass[0, 1, 1] + log_mass[1, 1, 0] + log_mass[1, 0, 2]) / 4
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert not responses.grad[0, :, 2].any() and not responses.grad[1, :, 1].any()
    assert responses.grad[0, :, 0].any()
    empty = query_distribution_loss(responses, target, membership, torch.zeros_like(mask))
    assert empty.item() == 0.0 and empty.requires_grad


def test_half_precision_is_evaluated_in_float32():
    responses = (20 * torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0))).half()
    target = torch.tensor([[[0, 1, 1, 0]]])
    loss = query_distribution_loss(responses, target, groups(4, 2))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, query_distribution_loss(responses.float(), target, groups(4, 2)))


def test_gradient_in_double_precision():
    responses = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    target = torch.tensor([[[0, 2, 1]], [[1, 1, 0]]])
    mask = torch.tensor([[[True, True, False]], [[True, True, True]]])
    assert torch.autograd.gradcheck(lambda r: query_distribution_loss(r, target, groups(2, 2, 1), mask), responses)


@pytest.mark.parametrize("membership", [[0, 1], [0, 2, 2], [-1, 0, 0]])
def test_groups_that_do_not_fit(membership):
    with pytest.raises(ValueError, match="group"):
        log_query_distribution(torch.zeros(1, 3, 2), torch.tensor(membership))
