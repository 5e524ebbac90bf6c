import torch
from torch import nn

from nnunet_ssl.training.network import swap_weights, unwrap


def test_unwrap_returns_the_module_behind_compile():
    module = nn.Linear(2, 2)
    assert unwrap(torch.compile(module)) is module
    assert unwrap(module) is module


def test_swap_exchanges_values_and_keeps_the_parameters():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    parameter, a, b = first.weight, first.weight.clone(), second.weight.clone()
    swap_weights(first, second)
    assert first.weight is parameter
    assert torch.equal(first.weight, b) and torch.equal(second.weight, a)
