"""Attention with dropout on a CPU: PyTorch's, given the same dropped weights."""

import pytest
import torch
from torch.nn import functional as F

from nnunet_ssl.architectures import cpu_attention
from nnunet_ssl.architectures.cpu_attention import attention

RATE = 0.25


def heads(*shape, seed=0, scale=1.0):
    draw = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return (scale * draw).requires_grad_()


def dropped_weights(query, key, seed):
    """Weights after dropout, read off with an identity as values."""
    torch.manual_seed(seed)
    return attention(query, key, torch.eye(key.shape[-2]).expand(*key.shape[:-1], -1), RATE).detach()


@pytest.mark.parametrize("block", [1 << 18, 50, 1])
@pytest.mark.parametrize("batch", [(3,), (2, 2)])
def test_output_and_gradients_are_those_of_pytorch_with_the_same_weights_dropped(monkeypatch, block, batch):
    monkeypatch.setattr(cpu_attention, "BLOCK", block)
    query, key, value = heads(*batch, 13, 5), heads(*batch, 7, 5, seed=1), heads(*batch, 7, 4, seed=2)
    weights = dropped_weights(query, key, seed=3)
    torch.manual_seed(3)
    ours = attention(query, key, value, RATE)
    reference = ((query @ key.mT).softmax(-1) * (weights != 0) / (1 - RATE)) @ value
    torch.testing.assert_close(ours, reference)
    direction = heads(*reference.shape, seed=4).detach()
    for _ in range(2):  # as measuring the pull does before the step
        gradients = torch.autograd.grad((ours * direction).sum(), (query, key, value), retain_graph=True)
        expected = torch.autograd.grad((reference * direction).sum(), (query, key, value), retain_graph=True)
        for got, wanted in zip(gradients, expected, strict=True):
            torch.testing.assert_close(got, wanted)


def test_each_weight_is_dropped_with_the_rate_and_independently_of_its_neighbours():
    weights = dropped_weights(heads(4, 200, 8, scale=0.1), heads(4, 250, 8, seed=1), seed=0)
    dropped = (weights == 0).float()
    assert dropped.mean() == pytest.approx(RATE, abs=0.003)  # three standard deviations
    assert dropped.mean((0, 1)).std() == pytest.approx((RATE * (1 - RATE) / 800) ** 0.5, rel=0.2)
    for step in range(1, 5):  # four weights share one random number
        together = (dropped[..., step:] * dropped[..., :-step]).mean()
        assert together == pytest.approx(RATE**2, abs=0.003)
    assert weights.sum(-1).mean() == pytest.approx(1, abs=0.004)  # kept weights grow as much as is lost


def test_a_seed_decides():
    query, key = heads(1, 6, 3), heads(1, 9, 3, seed=1)
    assert torch.equal(dropped_weights(query, key, seed=1), dropped_weights(query, key, seed=1))
    assert not torch.equal(dropped_weights(query, key, seed=1), dropped_weights(query, key, seed=2))


def test_without_dropout_it_is_the_fused_kernel():
    query, key, value = heads(2, 6, 3), heads(2, 9, 3, seed=1), heads(2, 9, 3, seed=2)
    assert torch.equal(attention(query, key, value, 0.0), F.scaled_dot_product_attention(query, key, value, scale=1.0))
