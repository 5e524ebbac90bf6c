"""Scaled dot-product attention with dropout on a CPU, where PyTorch has no fused kernel for it.

PyTorch draws the dropout of each weight with 10 ns there, more than all the rest of attention between channels costs.
Here four weights share a random number of 64 bits, and blocks of logits stay in the processor's cache.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

BLOCK = 1 << 18  # logits at a time: 1 MiB
LEVELS = 1 << 16  # of the 16 random bits that decide over one weight


def attention(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    """softmax(query key^T) value with dropout of the softmax's weights.

    As :func:`torch.nn.functional.scaled_dot_product_attention` with ``scale=1``, which it is but for training with
    dropout on a CPU. There the rate is rounded to 1/65536.

    Args:
        query: (..., L, E) float32.
        key: (..., S, E).
        value: (..., S, V).
        dropout: rate in [0, 1).

    Returns:
        (..., L, V).
    """
    if dropout == 0.0 or query.device.type != "cpu" or torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=1.0)
    return attention_in_blocks(query, key, value, dropout)


def attention_in_blocks(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    """What :func:`attention` does with dropout on a CPU."""
    flat = (x.flatten(0, -3) for x in (query, key, value))
    result: Tensor = _AttentionWithDropout.apply(*flat, dropout)
    return result.unflatten(0, query.shape[:-2])


class _AttentionWithDropout(torch.autograd.Function):
    """Keeps the softmax's weights for the backward pass, the dropped ones with a minus."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, rate: float) -> Tensor:
        dropped = round(rate * LEVELS)
        ctx.scale = LEVELS / (LEVELS - dropped)
        weights = query.new_empty(*query.shape[:2], key.shape[1])
        out = query.new_empty(*query.shape[:2], value.shape[2])
        for i, rows in _blocks(weights):
            block = weights[i, rows]
            torch.softmax(query[i, rows] @ key[i].mT, dim=1, out=block)
            block.copysign_(_random_levels(block).sub_(dropped - LEVELS / 2 - 0.5))
            out[i, rows] = (value[i].mT @ block.clamp_min(0).mT).mT
        out.mul_(ctx.scale)
        ctx.save_for_backward(query, key, value, weights, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, weights, out = ctx.saved_tensors
        query_gradient = torch.empty_like(query)
        key_gradient, value_gradient = torch.zeros_like(key.mT), torch.zeros_like(value.mT)
        along = (gradient * out).sum(dim=2, keepdim=True)  # of softmax's own derivative
        gradient = gradient * ctx.scale
        for i, rows in _blocks(weights):
            block, above = weights[i, rows], gradient[i, rows]
            kept = block.clamp_min(0)
            logits_gradient = (above @ value[i].mT).mul_(kept).addcmul_(block.abs(), along[i, rows], value=-1)
            value_gradient[i].addmm_(above.mT, kept)
            key_gradient[i].addmm_(query[i, rows].mT, logits_gradient)
            query_gradient[i, rows] = (key[i].mT @ logits_gradient.mT).mT
        return query_gradient, key_gradient.mT, value_gradient.mT, None


def _blocks(weights: Tensor) -> list[tuple[int, slice]]:
    """Index and rows of each block of (N, L, S)."""
    batch, rows, columns = weights.shape
    step = max(1, BLOCK // columns)
    return [(i, slice(first, first + step)) for i in range(batch) for first in range(0, rows, step)]


def _random_levels(like: Tensor) -> Tensor:
    """Whole numbers, uniform in [-32768, 32767], as floats of the shape of ``like``."""
    bits = torch.empty(-(-like.numel() // 4), dtype=torch.int64, device=like.device).random_(-(2**63), None)
    return bits.view(torch.int16)[: like.numel()].view(like.shape).to(like.dtype)
