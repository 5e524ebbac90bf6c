"""Semantic knowledge complementarity: attention between the channels of labelled and unlabelled bottleneck features.

Source: SKCDF (Zhang et al., CVPR 2025), Sec. 3.2, Eqs. 7-12. As in the published experiments, and beyond the printed
equations: the context of a query are the channels of several samples of the other stream, the instance norm acts on
the logits, tokens are normalised before the attention, and the unlabelled tokens are constants in both roles.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_ssl.architectures.cpu_attention import attention
from nnunet_ssl.architectures.precision import float32_region

INSTANCE_NORM_EPS = 1e-5
LAYER_NORM_EPS = 1e-6


def to_patches(features: Tensor, patch: Sequence[int]) -> Tensor:
    """(B, C, *S) -> (B, n, C, G): n patches of G voxels, both in row-major order; ``patch`` must divide S."""
    dims = len(patch)
    grid = [s // p for s, p in zip(features.shape[2:], patch, strict=True)]
    blocks = features.reshape(*features.shape[:2], *(size for pair in zip(grid, patch, strict=True) for size in pair))
    grid_axes, patch_axes = range(2, 2 + 2 * dims, 2), range(3, 3 + 2 * dims, 2)
    blocks = blocks.permute(0, *grid_axes, 1, *patch_axes)
    return blocks.reshape(features.shape[0], prod(grid), features.shape[1], prod(patch))


def from_patches(tokens: Tensor, patch: Sequence[int], size: Sequence[int]) -> Tensor:
    """(B, n, G, C) -> (B, C, *size), the inverse of :func:`to_patches` but for the order of the last two axes."""
    dims = len(patch)
    grid = [s // p for s, p in zip(size, patch, strict=True)]
    blocks = tokens.reshape(tokens.shape[0], *grid, *patch, tokens.shape[-1])
    order = [axis for d in range(dims) for axis in (1 + d, 1 + dims + d)]
    return blocks.permute(0, 1 + 2 * dims, *order).reshape(tokens.shape[0], tokens.shape[-1], *size)


def normalize_logits(query: Tensor, key: Tensor) -> Tensor:
    """Scale the query so that the logits ``query @ key.mT`` have variance 1 over each whole matrix.

    This is instance norm up to the mean, to which a softmax is blind, without forming the logits. With bars for means
    over channels and covariances cov of the tokens, var(q k^T) = tr(cov_q cov_k) + k̄ cov_q k̄^T + q̄ cov_k q̄^T.

    Args:
        query: (..., M, G), M channels described by G tokens.
        key: (..., N, G), its leading axes broadcast with those of the query.

    Returns:
        (..., M, G), query / sqrt(var + 1e-5) with the biased variance.
    """
    query_mean, key_mean = query.mean(-2, keepdim=True), key.mean(-2, keepdim=True)
    query_rest, key_rest = query - query_mean, key - key_mean
    query_cov = query_rest.mT @ query_rest / query.shape[-2]
    key_cov = key_rest.mT @ key_rest / key.shape[-2]
    variance = (query_cov * key_cov).sum((-2, -1), keepdim=True)
    variance = variance + key_mean @ query_cov @ key_mean.mT + query_mean @ key_cov @ query_mean.mT
    return query * (variance + INSTANCE_NORM_EPS).rsqrt()


class ChannelAttention(nn.Module):
    """One block, local or global by its patch: tokens, attention between channels, normalisation, output map.

    Source: SKCDF, Eqs. 7-12. Both maps of the paper that are convolutions (patches to tokens, output) are written as
    the linear maps they are: the first mixes the G voxels of a patch, the same for every channel.

    Args:
        channels: C of the features.
        size: spatial size S of the features; axes that the patch does not divide are zero-padded at their end.
        patch: voxels per patch along each axis.
        num_heads: J = num_heads * C channels take part in the attention.
        dropout: of the attention weights and of the projected output.
        token_init: "identity" (features enter unmixed) or "xavier".
        self_heads: "split": C x C attention per head in self mode; "merged": J x J, as in cross mode.
    """

    def __init__(
        self,
        channels: int,
        size: Sequence[int],
        patch: Sequence[int],
        num_heads: int = 2,
        dropout: float = 0.1,
        token_init: str = "identity",
        self_heads: str = "split",
    ) -> None:
        super().__init__()
        self.size, self.patch = tuple(size), tuple(patch)
        self.padded = tuple(-(-s // p) * p for s, p in zip(self.size, self.patch, strict=True))
        self.self_heads = {"split": num_heads, "merged": 1}[self_heads]
        self.dropout = dropout
        tokens, inner = prod(self.patch), num_heads * channels
        self.token_map = nn.Linear(tokens, tokens)
        self.norm_tokens = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)
        self.query = nn.Linear(channels, inner, bias=False)
        self.key = nn.Linear(channels, inner, bias=False)
        self.value = nn.Linear(channels, inner, bias=False)
        self.projection = nn.Linear(inner, channels, bias=False)
        self.norm_output = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)
        self.output_map = nn.Linear(channels, channels)
        self._initialize(token_init)

    def _initialize(self, token_init: str) -> None:
        for linear in (self.query, self.key, self.value, self.projection):
            nn.init.xavier_uniform_(linear.weight)
        nn.init.xavier_normal_(self.output_map.weight)
        tokens = self.token_map.in_features
        if token_init == "identity":
            nn.init.eye_(self.token_map.weight)
            nn.init.zeros_(self.token_map.bias)
        elif token_init == "xavier":  # fans of the convolution from 1 channel to G with a kernel of G voxels
            nn.init.normal_(self.token_map.weight, std=(2 / (tokens + tokens**2)) ** 0.5)
        else:
            raise ValueError(f"token_init must be identity or xavier, got {token_init!r}")

    def self_mode(self, features: Tensor, merged: bool = False) -> Tensor:
        """(B, C, *S) -> (B, C, *S): queries and context from the same sample.

        Args:
            merged: J x J attention whatever ``self_heads``: cross mode with each sample as its own context.
        """
        heads = 1 if merged else self.self_heads
        tokens, normed = self._embed(features)
        query, key, value = (  # (B n, heads, J / heads, G)
            self._channels_first(linear, normed).flatten(0, 1).unflatten(1, (heads, -1))
            for linear in (self.query, self.key, self.value)
        )
        attended = self._attend(normalize_logits(query, key), key, value, self.training)
        return self._finish(tokens, attended.flatten(1, 2).unflatten(0, normed.shape[:2]), self.training)

    def cross_mode(
        self,
        labeled: Tensor,
        unlabeled: Tensor,
        labeled_context: Tensor | None,
        unlabeled_context: Tensor | None,
        guided_dropout: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """(B_L, C, *S), (B_U, C, *S) -> the same shapes: each stream queries samples of the other one.

        The unlabelled features are constants. Their output carries no gradient and, unless asked for, sees no dropout
        of its own (in a later block it sees that of its labelled context).

        Args:
            labeled_context, unlabeled_context: indices of the samples that serve as context, ``None`` for all.
            guided_dropout: dropout of the unlabelled output too, while training.
        """
        dropped = guided_dropout and self.training
        tokens, normed = self._embed(labeled)
        with torch.no_grad():
            guided_tokens, guided_normed = self._embed(unlabeled)
            attended = self._cross_attention(guided_normed, _pick(normed, labeled_context), dropped)
            guided = self._finish(guided_tokens, attended, dropped)
        attended = self._cross_attention(normed, _pick(guided_normed, unlabeled_context), self.training)
        return self._finish(tokens, attended, self.training), guided

    def _embed(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, *S) -> tokens and normalised tokens, both (B, n, G, C)."""
        if features.shape[2:] != self.size:
            raise ValueError(
                f"the bottleneck is {tuple(features.shape[2:])} but the network was built for {self.size}: "
                "images must have the plans' patch size"
            )
        padding = [p - s for s, p in zip(self.size, self.padded, strict=True)]
        features = F.pad(features, [amount for after in reversed(padding) for amount in (0, after)])
        tokens = self.token_map(to_patches(features, self.patch)).mT.contiguous()
        return tokens, self.norm_tokens(tokens)

    def _cross_attention(self, queries: Tensor, context: Tensor, dropout: bool) -> Tensor:
        """Normalised tokens (B, n, G, C) and those of R context samples (R, n, G, C) -> (B, n, J, G)."""
        batch, patches = queries.shape[:2]
        query = self._channels_first(self.query, queries)  # (B, n, J, G)
        key, value = (
            self._channels_first(linear, context).transpose(0, 1).flatten(1, 2)  # (n, R J, G)
            for linear in (self.key, self.value)
        )
        query = normalize_logits(query, key).transpose(0, 1).flatten(1, 2)  # (n, B J, G), the context is the same
        attended = self._attend(query[:, None], key[:, None], value[:, None], dropout)
        return attended.reshape(patches, batch, -1, attended.shape[-1]).transpose(0, 1)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, dropout: bool) -> Tensor:
        """softmax(query key^T) value over (..., channels, G)."""
        return attention(query, key, value, self.dropout if dropout else 0.0)

    def _finish(self, tokens: Tensor, attended: Tensor, dropout: bool) -> Tensor:
        """Tokens (B, n, G, C) and attention output (B, n, J, G) -> features (B, C, *S)."""
        update = F.dropout(self.projection(attended.mT), self.dropout, training=dropout)
        tokens = F.gelu(self.output_map(self.norm_output(tokens + update)))
        features = from_patches(tokens, self.patch, self.padded)
        for axis, size in enumerate(self.size, start=2):
            features = features.narrow(axis, 0, size)
        return features

    @staticmethod
    def _channels_first(linear: nn.Linear, normed: Tensor) -> Tensor:
        """(B, n, G, C) -> (B, n, J, G), contiguous as the fused attention kernels want it."""
        return linear(normed).mT.contiguous()


class SemanticKnowledgeComplementarity(nn.Module):
    """Local, then global attention between the channels of two streams, or within each sample; shared weights.

    Source: SKCDF, Sec. 3.2, Eqs. 7-12. Runs in float32 whatever the autocast mode.

    Args:
        channels: C of the bottleneck.
        size: spatial size S of the bottleneck, 2D or 3D. It fixes the shape of the weights.
        num_heads, dropout, token_init, self_heads: see :class:`ChannelAttention`.
        max_context: at most so many samples of the other stream serve as context, drawn anew at each call; ``None``
            for all. Logits per direction number B n J R J with R context samples, n patches, J = num_heads C.
    """

    def __init__(
        self,
        channels: int,
        size: Sequence[int],
        num_heads: int = 2,
        dropout: float = 0.1,
        max_context: int | None = 2,
        token_init: str = "identity",
        self_heads: str = "split",
    ) -> None:
        super().__init__()
        if max_context is not None and max_context < 1:
            raise ValueError(f"max_context must be at least 1 or None, got {max_context}")
        if self_heads not in ("split", "merged"):
            raise ValueError(f"self_heads must be split or merged, got {self_heads!r}")
        self.max_context = max_context
        patch = [min(2, s) for s in size]
        self.local_attention = ChannelAttention(channels, size, patch, num_heads, dropout, token_init, self_heads)
        self.global_attention = ChannelAttention(channels, size, size, num_heads, dropout, token_init, self_heads)

    def forward(self, features: Tensor, as_context: bool = False) -> Tensor:
        """Self mode, (B, C, *S) -> (B, C, *S) float32: no sample sees another one.

        Args:
            as_context: cross mode with each sample as its own and only context.
        """
        with float32_region(features.device):
            local = self.local_attention.self_mode(features.float(), as_context)
            return self.global_attention.self_mode(local, as_context)

    def cross(self, labeled: Tensor, unlabeled: Tensor, guided_dropout: bool = False) -> tuple[Tensor, Tensor]:
        """Cross mode, (B_L, C, *S) and (B_U, C, *S) -> the same shapes, float32; B_L and B_U may differ.

        The unlabelled output carries no gradient, and none flows to the unlabelled features. Where one stream is
        empty, the other one falls back to self mode.
        """
        if labeled.shape[0] == 0:
            with torch.no_grad():
                return labeled.float(), self(unlabeled)
        if unlabeled.shape[0] == 0:
            return self(labeled), unlabeled.float()
        labeled_context, unlabeled_context = self._draw(labeled), self._draw(unlabeled)
        with float32_region(labeled.device):
            labeled, unlabeled = labeled.float(), unlabeled.float()
            for block in (self.local_attention, self.global_attention):
                labeled, unlabeled = block.cross_mode(
                    labeled, unlabeled, labeled_context, unlabeled_context, guided_dropout
                )
        return labeled, unlabeled

    def _draw(self, features: Tensor) -> Tensor | None:
        """Indices of the samples that serve as context, or ``None`` for all of them."""
        if self.max_context is None or features.shape[0] <= self.max_context:
            return None
        return torch.randperm(features.shape[0], device=features.device)[: self.max_context]


def _pick(samples: Tensor, indices: Tensor | None) -> Tensor:
    return samples if indices is None else samples.index_select(0, indices)
