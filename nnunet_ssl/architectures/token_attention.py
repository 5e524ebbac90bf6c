"""Attention between the positions of a map, with a bias for their relative position.

Source: CMAformer (Zheng et al., arXiv:2409.07793), Sec. III-B and Eq. 1. The authors' code attends across the batch;
here each image attends within itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FFN_FACTOR = 4


def to_tokens(x: Tensor) -> Tensor:
    """A map (B, C, *S) -> tokens (B, T, C)."""
    return x.flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, like: Tensor) -> Tensor:
    """Tokens (B, T, C) -> a map with the spatial size of ``like``."""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *like.shape[2:])


class RelativePositionBias(nn.Module):
    """P of Eq. 1: one learned number per head and difference of coordinates, zero at first.

    Args:
        heads: of the attention.
        grid: size of the map along each axis.
    """

    index: Tensor

    def __init__(self, heads: int, grid: Sequence[int]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(heads, prod(2 * m - 1 for m in grid)))
        axes = torch.meshgrid(*[torch.arange(m) for m in grid], indexing="ij")
        index = torch.zeros(prod(grid), prod(grid), dtype=torch.long)
        for axis, m in zip(axes, grid, strict=True):
            place = axis.flatten()
            index = index * (2 * m - 1) + (place.unsqueeze(1) - place + m - 1)
        self.register_buffer("index", index, persistent=False)

    def forward(self) -> Tensor:
        """(1, heads, T, T)."""
        return self.table[:, self.index].unsqueeze(0)


class TokenAttention(nn.Module):
    """softmax(q k^T / sqrt(d) + P) v within each image.

    Args:
        channels: of the tokens.
        heads: at most; as many as divide the channels.
        grid: of the map, for the position bias P; ``None``: no bias, and any number of tokens.
        context: channels of the tokens that are attended to, by default the same.
    """

    def __init__(
        self, channels: int, heads: int, grid: Sequence[int] | None = None, context: int | None = None
    ) -> None:
        super().__init__()
        self.heads = gcd(heads, channels)
        self.query = nn.Linear(channels, channels)
        self.key, self.value = (nn.Linear(context or channels, channels) for _ in range(2))
        self.out = nn.Linear(channels, channels)
        self.bias = None if grid is None else RelativePositionBias(self.heads, grid)

    def forward(self, query: Tensor, context: Tensor) -> Tensor:
        """(B, T, C) and (B, U, D) -> (B, T, C)."""
        q, k, v = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, query), (self.key, context), (self.value, context))
        )
        bias = None if self.bias is None else self.bias().to(q.dtype)
        return self.out(F.scaled_dot_product_attention(q, k, v, bias).transpose(1, 2).flatten(2))


class FeedForward(nn.Sequential):
    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Linear(channels, FFN_FACTOR * channels), nn.GELU(), nn.Linear(FFN_FACTOR * channels, channels)
        )


class EncoderLayer(nn.Module):
    """q = LN(x); r = LN(attention(q, x) + q); r + FFN(r). The query alone is normed, and added."""

    def __init__(self, channels: int, heads: int, grid: Sequence[int] | None) -> None:
        super().__init__()
        self.query_norm, self.norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention, self.feed_forward = TokenAttention(channels, heads, grid), FeedForward(channels)

    def forward(self, tokens: Tensor) -> Tensor:
        query = self.query_norm(tokens)
        inner = self.norm(self.attention(query, tokens) + query)
        return inner + self.feed_forward(inner)


class DecoderLayer(nn.Module):
    """r = LN(attention(x, memory) + x); LN(r + FFN(r))."""

    def __init__(self, channels: int, heads: int, grid: Sequence[int] | None) -> None:
        super().__init__()
        self.norm, self.out_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention, self.feed_forward = TokenAttention(channels, heads, grid), FeedForward(channels)

    def forward(self, tokens: Tensor, memory: Tensor) -> Tensor:
        inner = self.norm(self.attention(tokens, memory) + tokens)
        return self.out_norm(inner + self.feed_forward(inner))


class CrossAttentionGate(nn.Module):
    """The paper's cross-attention: queries of the decoder's map, keys and values of the encoder's, and a residual.

    Args:
        encoded, decoded: channels of both maps, which have the same size.
        heads: at most.
    """

    def __init__(self, encoded: int, decoded: int, heads: int) -> None:
        super().__init__()
        self.attention = TokenAttention(decoded, heads, context=encoded)

    def forward(self, encoded: Tensor, decoded: Tensor) -> Tensor:
        return decoded + to_map(self.attention(to_tokens(decoded), to_tokens(encoded)), decoded)
