"""Encoder and decoder of a V-Net with the attributes of nnU-Net's, so that what works on those works on these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from dynamic_network_architectures.building_blocks.helper import (
    get_matching_convtransp,
    maybe_convert_scalar_to_list,
)
from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import Tensor, nn

PerStage = int | Sequence[int] | Sequence[Sequence[int]]


class VNetEncoder(PlainConvEncoder):
    """Features of each resolution, the bottleneck last; arguments as of :class:`VNet`."""

    def __init__(
        self,
        input_channels: int,
        n_stages: int,
        features_per_stage: int | Sequence[int],
        conv_op: type[nn.Module],
        kernel_sizes: PerStage,
        strides: PerStage,
        n_conv_per_stage: int | Sequence[int],
        *,
        nonlin_first: bool,
        dropout: nn.Module | None,
        **block: Any,
    ) -> None:
        each: list[list[Any]] = [
            [value] * n_stages if isinstance(value, int) else list(value)
            for value in (features_per_stage, kernel_sizes, strides, n_conv_per_stage)
        ]
        features, kernels, steps, convs = each
        # the base keeps what a decoder asks for; its stages, of one convolution each, are replaced
        super().__init__(
            input_channels, n_stages, features, conv_op, kernels, steps, 1, return_skips=True, **block
        )  # fmt: skip
        if any(step != 1 for step in self.strides[0]):
            raise ValueError(f"the first stage of a V-Net has no stride, got {self.strides[0]}")
        if len(convs) != n_stages:
            raise ValueError(f"n_conv_per_stage has {len(convs)} entries for {n_stages} stages")
        self.kernel_sizes = [maybe_convert_scalar_to_list(conv_op, kernel) for kernel in kernels]
        self.convolutions = convs
        widths = [input_channels, *features]
        stages = []
        for level, (width, kernel, step, count) in enumerate(zip(features, kernels, self.strides, convs, strict=True)):
            down = [] if level == 0 else [resampling(conv_op, widths[level], width, step, nonlin_first, **block)]
            first = widths[0] if level == 0 else width
            own = StackedConvBlocks(count, conv_op, first, width, kernel, 1, **block, nonlin_first=nonlin_first)
            stages.append(nn.Sequential(*down, own))
        if dropout is not None:
            stages[-1].append(dropout)
        self.stages = nn.Sequential(*stages)

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> np.int64:
        size, total = np.array(input_size, dtype=np.int64), np.int64(0)
        for level, (width, step, count) in enumerate(
            zip(self.output_channels, self.strides, self.convolutions, strict=True)
        ):
            size = size // np.array(step)
            total += (count + (level > 0)) * width * np.prod(size)
        return total


class VNetDecoder(UNetDecoder):
    """Features of a :class:`VNetEncoder` -> logits; ``transpconvs``, ``stages``, ``seg_layers`` as nnU-Net's decoder.

    What comes from below and the skip are added: see :meth:`join`.
    """

    def __init__(
        self,
        encoder: VNetEncoder,
        num_classes: int,
        n_conv_per_stage: int | Sequence[int],
        deep_supervision: bool,
        nonlin_first: bool,
        dropout: nn.Module | None,
    ) -> None:
        levels = len(encoder.output_channels) - 1
        convs = [n_conv_per_stage] * levels if isinstance(n_conv_per_stage, int) else list(n_conv_per_stage)
        if len(convs) != levels:
            raise ValueError(f"n_conv_per_stage_decoder has {len(convs)} entries for {levels} stages")
        super().__init__(encoder, num_classes, 1, deep_supervision)  # its heads stay, the other parts are replaced
        self.convolutions = convs
        if not deep_supervision:  # the publication's network has one head; the numbers of the heads stay, for loading
            for level in range(levels - 1):
                self.seg_layers[level] = nn.Identity()
        block = {
            "conv_bias": encoder.conv_bias,
            "norm_op": encoder.norm_op,
            "norm_op_kwargs": encoder.norm_op_kwargs,
            "nonlin": encoder.nonlin,
            "nonlin_kwargs": encoder.nonlin_kwargs,
        }
        upwards, transposed = list(reversed(encoder.output_channels)), get_matching_convtransp(encoder.conv_op)
        steps = list(reversed(encoder.strides))
        self.transpconvs = nn.ModuleList(
            resampling(transposed, below, width, step, nonlin_first, **block)
            for below, width, step in zip(upwards, upwards[1:], steps, strict=False)
        )
        kernels = list(reversed(encoder.kernel_sizes))[1:]
        stages: list[list[nn.Module]] = [
            [StackedConvBlocks(n, encoder.conv_op, width, width, kernel, 1, **block, nonlin_first=nonlin_first)]
            for n, width, kernel in zip(convs, upwards[1:], kernels, strict=True)
        ]
        stages[-1] += [] if dropout is None else [dropout]
        self.stages = nn.ModuleList(nn.Sequential(*stage) for stage in stages)

    @staticmethod
    def join(below: Tensor, skip: Tensor) -> Tensor:
        """(B, F, *S) twice -> what a stage of convolutions sees."""
        return below + skip

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Heads of coarser resolutions, with which the weights were trained, are left out where there are none here."""
        absent = [i for i, head in enumerate(self.seg_layers) if isinstance(head, nn.Identity)]
        unused = tuple(f"{prefix}seg_layers.{i}." for i in absent)
        for key in [k for k in state_dict if k.startswith(unused)] if unused else []:
            del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, skips: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Features of the encoder, the bottleneck last -> logits, see :class:`VNet`."""
        features, outputs = skips[-1], []
        for upsample, stage, head, skip in zip(
            self.transpconvs, self.stages, self.seg_layers, reversed(skips[:-1]), strict=True
        ):
            features = stage(self.join(upsample(features), skip))
            if self.deep_supervision or head is self.seg_layers[-1]:
                outputs.append(head(features))
        return outputs[::-1] if self.deep_supervision else outputs[0]

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> np.int64:
        size, sizes = np.array(input_size, dtype=np.int64), []
        for step in self.encoder.strides[:-1]:
            size = size // np.array(step)
            sizes.append(size)
        total = np.int64(0)
        for level, (count, size) in enumerate(zip(self.convolutions, reversed(sizes), strict=True)):
            width = self.encoder.output_channels[-(level + 2)]
            shown = self.num_classes if self.deep_supervision or level == len(sizes) - 1 else 0
            total += ((count + 1) * width + shown) * np.prod(size)
        return total


def resampling(
    conv_op: type[nn.Module],
    channels: int,
    width: int,
    step: Sequence[int],
    nonlin_first: bool,
    *,
    conv_bias: bool,
    norm_op: type[nn.Module] | None,
    norm_op_kwargs: dict[str, Any] | None,
    nonlin: type[nn.Module] | None,
    nonlin_kwargs: dict[str, Any] | None,
) -> nn.Sequential:
    """A convolution whose kernel is its stride, or a transposed one, with norm and activation."""
    convolution = conv_op(channels, width, tuple(step), tuple(step), bias=conv_bias)
    behind = [] if norm_op is None else [norm_op(width, **(norm_op_kwargs or {}))]
    behind += [] if nonlin is None else [nonlin(**(nonlin_kwargs or {}))]
    return nn.Sequential(convolution, *(behind[::-1] if nonlin_first else behind))


__all__ = ["PerStage", "VNetDecoder", "VNetEncoder"]
