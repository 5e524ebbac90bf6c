"""CMAformer: a residual U-Net with patch embedding, channel attention and a transformer at its bottleneck.

Source: Zheng et al., "Lagrange Duality and Compound Multi-Attention Transformer for Semi-Supervised Medical Image
Segmentation" (arXiv:2409.07793). Any number of levels, in 2D and 3D; with the six levels of the authors' code and
:func:`released_layout` it has their parameters, and not their two defects (attention across the batch, scrambled maps).
"""

from __future__ import annotations

import pydoc
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_ssl.architectures.cmaformer_blocks import (
    AtrousPyramid,
    ChannelAttention,
    Ops,
    PatchEmbedding,
    ResidualConv,
    ScalarGate,
    Stem,
    fitted_dilations,
)
from nnunet_ssl.architectures.token_attention import (
    CrossAttentionGate,
    DecoderLayer,
    EncoderLayer,
    to_map,
    to_tokens,
)

GATES = ("scalar", "sigmoid", "qkv", "none")
NORMS = ("plans", "batch")
QKV_TOKENS = 1024  # positions up to which a level has the cross-attention of queries, keys and values
RELEASED_DILATIONS = [6, 12, 18]
PLANS_KEYS = ("features_per_stage", "strides", "kernel_sizes")


class NoGate(nn.Module):
    """What comes from below, as it is."""

    def forward(self, encoded: Tensor, decoded: Tensor) -> Tensor:
        return decoded


class Bottleneck(nn.Module):
    """Transformer encoder, atrous pyramid, transformer decoder that attends to the encoder's tokens.

    Without layers the pyramid is left.
    """

    def __init__(
        self, ops: Ops, channels: int, kernel: Sequence[int], dilations: Any, layers: int, heads: int, grid: Any
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(EncoderLayer(channels, heads, grid) for _ in range(layers))
        self.bridge = AtrousPyramid(ops, channels, channels, kernel, dilations)
        self.decoder = nn.ModuleList(DecoderLayer(channels, heads, grid) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        memory = to_tokens(x)
        for layer in self.encoder:
            memory = layer(memory)
        tokens = to_tokens(self.bridge(to_map(memory, x)))
        for layer in self.decoder:
            tokens = layer(tokens, memory)
        return to_map(tokens, x)


class DecoderStep(nn.Module):
    """Gate with the encoder's map of the same level, up to the skip's size, join, residual convolution."""

    def __init__(self, gate: nn.Module, reduce: nn.Module, join: ResidualConv) -> None:
        super().__init__()
        self.gate, self.reduce, self.join = gate, reduce, join

    def forward(self, x: Tensor, encoded: Tensor, skip: Tensor) -> Tensor:
        x = self.reduce(self.gate(encoded, x))
        mode = "bilinear" if x.ndim == 4 else "trilinear"
        return self.join(torch.cat((F.interpolate(x, skip.shape[2:], mode=mode, align_corners=False), skip), 1))


class Decoder(nn.Module):
    """From the bottleneck up over the even levels, to the features of level 0 and the logits."""

    def __init__(self, steps: dict[int, DecoderStep], output: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.levels = list(steps)
        self.steps, self.output = nn.ModuleList(steps.values()), output
        # nnU-Net's -pretrained_weights leave out what has this in its name: heads, which fit no other number of classes
        self.seg_layers = nn.ModuleList([head])

    def forward(self, x: Tensor, maps: Sequence[Tensor]) -> Tensor:
        encoded = maps[-1]
        for level, step in zip(self.levels, self.steps, strict=True):
            x, encoded = step(x, encoded, maps[level]), maps[level]
        return self.seg_layers[0](self.output(x))


class CMAformer(nn.Module):
    """Logits (B, K, *P) of images (B, C, *P).

    Odd levels are patch embeddings with channel attention, even ones residual convolutions; the last one is completed
    by the other kind. Skips are the even levels, so that the decoder goes up two levels at a time and there is no deep
    supervision.

    Args:
        input_channels, num_classes: C and K.
        patch_size: P; with position bias, the only size.
        features_per_stage, strides, kernel_sizes: per level, as in nnU-Net's plans.
        norm_op, norm_op_kwargs: as in the plans; by default the instance norm that nnU-Net plans.
        lite: a 1x1 convolution narrows the map before it is enlarged, and a convolution takes the place of the pyramid
            at full resolution. ``None``: so it is, but weights of the whole decoder that are loaded make it whole:
            those of 2D networks from versions in which the whole one was their default.
        gate: "scalar", "sigmoid" (the same, bounded), "qkv" (attention where a level has up to 1024 positions,
            "scalar" elsewhere) or "none".
        position_bias: relative position bias at the bottleneck.
        transformer_layers: of the encoder and of the decoder, 0 for none.
        heads: of every attention, at most.
        dilations: the pyramids' own three; ``None``: 6, 12, 18 as far as they fit the map.

    Raises:
        ValueError: fewer than two levels, lists of different lengths, an unknown gate.
        NotImplementedError: a stride at level 0.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        patch_size: Sequence[int],
        features_per_stage: Sequence[int],
        strides: Sequence[Sequence[int]],
        kernel_sizes: Sequence[Sequence[int]],
        norm_op: type[nn.Module] | None = None,
        norm_op_kwargs: dict[str, Any] | None = None,
        *,
        lite: bool | None = None,
        gate: str = "scalar",
        position_bias: bool = True,
        transformer_layers: int = 3,
        heads: int = 8,
        dilations: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        levels, dimensions = len(features_per_stage), len(patch_size)
        if levels < 2 or len(strides) != levels or len(kernel_sizes) != levels:
            raise ValueError(f"CMAformer needs 2 or more levels, each with features, stride and kernel, got {levels}")
        if gate not in GATES:
            raise ValueError(f"gate must be one of {', '.join(GATES)}, got {gate!r}")
        if prod(strides[0]) != 1:
            raise NotImplementedError(f"CMAformer does not support a stride at level 0, got {list(strides[0])}")
        if norm_op is None:
            norm_op = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dimensions]
            norm_op_kwargs = {"eps": 1e-5, "affine": True}
        ops = Ops(dimensions, norm_op, norm_op_kwargs or {})
        f, sizes = features_per_stage, map_sizes(patch_size, strides)

        def rates(level: int) -> Sequence[Any]:
            return fitted_dilations(sizes[level]) if dilations is None else dilations

        self.stages = nn.ModuleList([Stem(ops, input_channels, f[0], kernel_sizes[0])])
        for level in range(1, levels):
            self.stages.append(_stage(ops, level, f, kernel_sizes[level], strides[level], last=level == levels - 1))
        grid = sizes[-1] if position_bias else None
        self.bottleneck = Bottleneck(ops, f[-1], kernel_sizes[-1], rates(-1), transformer_layers, heads, grid)
        self._decided = lite is not None
        self._decoder_parts = ops, num_classes, f, kernel_sizes, sizes, gate, heads, rates(0)
        self.decoder = self._decoder(lite is not False)

    def _decoder(self, lite: bool) -> Decoder:
        ops, num_classes, f, kernel_sizes, sizes, gate, heads, rates = self._decoder_parts

        def make_gate(level: int, decoded: int) -> nn.Module:
            if gate == "none":
                return NoGate()
            if gate == "qkv" and prod(sizes[level]) <= QKV_TOKENS:
                return CrossAttentionGate(f[level], decoded, heads)
            return ScalarGate(ops, f[level], decoded, kernel_sizes[level], bounded=gate == "sigmoid")

        levels = len(f)
        steps: dict[int, DecoderStep] = {}
        current, width = levels - 1, f[-1]
        for level in range((levels - 2) // 2 * 2, -1, -2):
            up = f[level] if lite else width
            out = f[level] if lite or not steps else f[level + 1]
            reduce = ops.conv(width, up) if lite else nn.Identity()
            join = ResidualConv(ops, up + f[level], out, kernel_sizes[level])
            steps[level] = DecoderStep(make_gate(current, width), reduce, join)
            current, width = level, out
        if lite:
            output: nn.Module = nn.Sequential(ops.conv(width, f[0], kernel_sizes[0]), ops.norm(f[0]), nn.ReLU())
        else:
            output = AtrousPyramid(ops, width, f[0], kernel_sizes[0], rates)
        return Decoder(steps, output, ops.conv(f[0], num_classes))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        if not self._decided and has_whole_decoder(state_dict, prefix):
            device = next(self.parameters()).device
            self.decoder = self._decoder(lite=False).to(device).train(self.training)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    @classmethod
    def from_plans(
        cls,
        arch_kwargs: dict[str, Any],
        patch_size: Sequence[int],
        input_channels: int,
        output_channels: int,
        *,
        norms: str = "plans",
        **options: Any,
    ) -> CMAformer:
        """With the levels of a U-Net in nnU-Net's plans, and its norm or batch norm.

        ``options`` are those of the constructor.
        """
        norm, norm_kwargs = arch_kwargs.get("norm_op"), arch_kwargs.get("norm_op_kwargs")
        norm_op: Any = pydoc.locate(norm) if isinstance(norm, str) else norm
        if norms == "batch":
            norm_op, norm_kwargs = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[len(patch_size)], None
        levels = {key: arch_kwargs[key] for key in PLANS_KEYS}
        dimensions = len(patch_size)
        for key in ("strides", "kernel_sizes"):  # plans may give one number for all axes
            levels[key] = [[v] * dimensions if isinstance(v, int) else list(v) for v in levels[key]]
        return cls(input_channels, output_channels, patch_size, **levels, norm_op=norm_op, norm_op_kwargs=norm_kwargs,
                   **options)  # fmt: skip

    def encode(self, images: Tensor) -> list[Tensor]:
        """The maps of all levels."""
        maps = [images]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]

    def forward(self, images: Tensor) -> Tensor:
        maps = self.encode(images)
        return self.decoder(self.bottleneck(maps[-1]), maps)


def has_whole_decoder(state: Mapping[str, Any], prefix: str = "") -> bool:
    """Whether these are the weights of a :class:`CMAformer` that is not lite."""
    return f"{prefix}decoder.output.join.weight" in state


def released_layout(input_channels: int, num_classes: int, patch_size: Sequence[int] = (512, 512)) -> CMAformer:
    """The network of the authors' code in 2D: six levels of 16 to 512 channels, batch norm, no position bias."""
    return CMAformer(
        input_channels,
        num_classes,
        patch_size,
        features_per_stage=[16, 32, 64, 128, 256, 512],
        strides=[[1, 1]] + [[2, 2]] * 5,
        kernel_sizes=[[3, 3]] * 6,
        norm_op=nn.BatchNorm2d,
        lite=False,
        position_bias=False,
        dilations=RELEASED_DILATIONS,
    )


def map_sizes(patch_size: Sequence[int], strides: Sequence[Sequence[int]]) -> list[list[int]]:
    """The spatial size of every level."""
    sizes, size = [], list(patch_size)
    for stride in strides:
        size = [-(-n // s) for n, s in zip(size, stride, strict=True)]
        sizes.append(size)
    return sizes


def _stage(
    ops: Ops, level: int, features: Sequence[int], kernel: Sequence[int], stride: Sequence[int], last: bool
) -> nn.Module:
    inputs, outputs = features[level - 1], features[level]
    if level % 2 == 0:
        residual = ResidualConv(ops, inputs, outputs, kernel, stride)
        return nn.Sequential(residual, ChannelAttention(outputs)) if last else residual
    parts: list[nn.Module] = [PatchEmbedding(ops, inputs, outputs, kernel, stride), ChannelAttention(outputs)]
    if last:
        parts.append(ResidualConv(ops, outputs, outputs, kernel))
    return nn.Sequential(*parts)


__all__ = ["CMAformer", "has_whole_decoder", "released_layout"]
