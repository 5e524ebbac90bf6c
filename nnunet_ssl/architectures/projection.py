"""From patches to embeddings of unit length: part of an encoder, and a small head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F

from nnunet_ssl.architectures.feature_tap import input_of_last


def pooled_features(encoder: nn.Module, images: Tensor, stage: int) -> Tensor:
    """Mean over space of what the last norm of one stage is about to normalise, (N, channels of the stage), float32.

    Behind an instance norm and its nonlinearity the mean over a few positions is nearly the same for every image: of n
    positions and a leaky ReLU between 0.99 sqrt(n - 1) / n and 0.495. A stage without a norm gives its output.

    Args:
        encoder: with ``stages`` and perhaps a ``stem``, as those of dynamic_network_architectures.
        images: (N, C, *S).
        stage: counted from 0; deeper ones do not run.
    """
    stem = getattr(encoder, "stem", None)
    features = images if stem is None else stem(images)
    for block in encoder.stages[:stage]:  # type: ignore[index]
        features = block(features)
    last: nn.Module = encoder.stages[stage]  # type: ignore[index,assignment]
    with input_of_last(normalizations(last)) as seen:
        features = last(features)
    return (seen[-1] if seen else features).flatten(2).float().mean(2)


def normalizations(module: nn.Module) -> list[nn.Module]:
    """Its batch, instance, group and layer norms."""
    return [m for m in module.modules() if isinstance(m, (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm))]


class ProjectionHead(nn.Module):
    """Linear, batch norm, ReLU, Linear, batch norm, unit length.

    Source: PLGCL (Basak & Yin, CVPR 2023), "shallow FC layer" after SimCLR; layers, width and size as in its released
    code. The norms centre over the patches of all classes: without that all embeddings start, and stay, alike.

    Args:
        channels: of the pooled features.
        dimensions: of the embedding.
    """

    def __init__(self, channels: int, dimensions: int = 128) -> None:
        super().__init__()
        self.hidden = nn.Linear(channels, channels, bias=False)  # the norm behind it takes a bias away
        self.hidden_norm = MaskedBatchNorm(channels)
        self.out = nn.Linear(channels, dimensions, bias=False)
        self.out_norm = MaskedBatchNorm(dimensions)

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """(N, channels), which of them count (N,) bool -> (N, dimensions). Every rank must call it."""
        hidden = F.relu(self.hidden_norm(self.hidden(features), valid))
        return F.normalize(self.out_norm(self.out(hidden), valid), dim=1, eps=1e-3)  # a bounded gradient at 0


class MaskedBatchNorm(nn.Module):
    """Batch norm with mean and variance of the valid rows of all ranks, in training and in evaluation alike.

    There are no running statistics: what embeds the patches of a step always sees many of them.

    Args:
        channels: of the rows.
        eps: added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, rows: Tensor, valid: Tensor) -> Tensor:
        """(N, channels), (N,) bool -> (N, channels); rows that are not valid are normalised like the others."""
        counts = valid[:, None].to(rows.dtype)
        number = _sum_over_ranks(counts.sum()).clamp(min=1)
        centred = rows - _sum_over_ranks((rows * counts).sum(0)) / number
        variance = _sum_over_ranks((centred.square() * counts).sum(0)) / number
        return centred * (variance + self.eps).rsqrt() * self.weight + self.bias


def _sum_over_ranks(values: Tensor) -> Tensor:
    """Elementwise, with the gradient of all ranks. One process: as is."""
    if not (dist.is_available() and dist.is_initialized()):
        return values
    return _differentiable_sum(values)


@torch.compiler.disable  # which has no collective with a gradient
def _differentiable_sum(values: Tensor) -> Tensor:
    total: Tensor = _DifferentiableSum.apply(values)
    return total


class _DifferentiableSum(torch.autograd.Function):
    """All ranks must run it forwards and backwards in the same order, as those of :class:`MaskedBatchNorm` do."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _summed(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(values: Tensor) -> Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total
