import torch
from torch import nn

from nnunet_ssl.training.network import freeze_unused_heads, swap_weights, unwrap


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


def test_swap_takes_the_statistics_of_batch_norm_along():
    first, second = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    first(torch.randn(8, 2))
    mean = first.running_mean.clone()
    assert not torch.equal(mean, second.running_mean)
    swap_weights(first, second)
    assert torch.equal(second.running_mean, mean) and first.num_batches_tracked == 0


class Decoder(nn.Module):
    def __init__(self, deep_supervision: bool) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        self.seg_layers = nn.ModuleList(nn.Conv2d(1, 1, 1) for _ in range(3))


def test_only_heads_without_use_are_frozen():
    with_, without = Decoder(True), Decoder(False)
    freeze_unused_heads(nn.Sequential(with_, without))
    assert all(p.requires_grad for p in with_.parameters())
    assert [p.requires_grad for p in without.parameters()] == [False] * 4 + [True] * 2
