"""A residual encoder under the decoder of a V-Net: the second network of MCF and of Dual Networks.

Source: ResNet-34 (He et al., CVPR 2016) in 3D, without the pooling behind its first convolution, as in the released
code of MCF (Wang et al., CVPR 2023), from which Dual Networks descends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dynamic_network_architectures.building_blocks.helper import maybe_convert_scalar_to_list
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from nnunet_ssl.architectures.vnet import VNet
from nnunet_ssl.architectures.vnet_parts import PerStage, VNetEncoder

STEM = 7  # edge of the first kernel on axes where the plans' kernel is larger than 1


class ResVNet(VNet):
    """A :class:`VNet` whose encoder is residual: a wide convolution, then stages of basic blocks.

    Args:
        n_blocks_per_stage: one per stage, the first for blocks at full resolution behind the first convolution;
            ResNet-34: 0 3 4 6 3.
        arguments: those of :class:`VNet` but ``n_conv_per_stage``, by name. The encoder's convolutions have no bias.

    Raises:
        ValueError: see :class:`VNet`; a coarser stage without blocks; no norm.
    """

    def __init__(
        self,
        input_channels: int,
        n_stages: int,
        features_per_stage: int | Sequence[int],
        conv_op: type[nn.Module],
        kernel_sizes: PerStage,
        strides: PerStage,
        n_blocks_per_stage: int | Sequence[int],
        num_classes: int,
        n_conv_per_stage_decoder: int | Sequence[int],
        **arguments: Any,
    ) -> None:
        blocks = [n_blocks_per_stage] * n_stages if isinstance(n_blocks_per_stage, int) else list(n_blocks_per_stage)
        if len(blocks) != n_stages or min(blocks[1:], default=1) < 1:
            raise ValueError(f"n_blocks_per_stage needs {n_stages} entries, at least 1 behind the first, got {blocks}")
        if arguments.get("norm_op") is None:
            raise ValueError("a residual V-Net needs a norm_op")
        super().__init__(
            input_channels,
            n_stages,
            features_per_stage,
            conv_op,
            kernel_sizes,
            strides,
            1,
            num_classes,
            n_conv_per_stage_decoder,
            **arguments,
        )
        self.keys_to_in_proj = ("encoder.stages.0.0",)
        dropout = [m for m in self.encoder.stages[-1].children() if isinstance(m, _DropoutNd)]
        self.encoder.stages = residual_stages(self.encoder, input_channels, blocks, dropout)
        self.encoder.convolutions = [2 * count for count in blocks]


def residual_stages(
    encoder: VNetEncoder, input_channels: int, blocks: Sequence[int], behind: Sequence[nn.Module]
) -> nn.Sequential:
    """The stages of a residual encoder with the features, kernels, strides, norm and activation of a plain one.

    Args:
        encoder: the plain one.
        input_channels: C.
        blocks: per stage.
        behind: what follows the last block.
    """
    conv_op, norms = encoder.conv_op, encoder.norm_op_kwargs or {}
    kernel = [STEM if k > 1 else 1 for k in encoder.kernel_sizes[0]]
    width = encoder.output_channels[0]
    stem = conv_op(input_channels, width, kernel, padding=[k // 2 for k in kernel], bias=False)
    stages = [[stem, encoder.norm_op(width, **norms), activation(encoder)]]
    for level, (features, step, count) in enumerate(zip(encoder.output_channels, encoder.strides, blocks, strict=True)):
        own = [] if level else stages.pop()
        for number in range(count):
            own.append(BasicBlock(encoder, width, features, level, step if number == 0 else [1] * len(step)))
            width = features
        stages.append(own)
    stages[-1] += behind
    return nn.Sequential(*(nn.Sequential(*stage) for stage in stages))


class BasicBlock(nn.Module):
    """Two convolutions with norm, added to the input, which a strided 1x1 convolution with norm fits where it must.

    Args:
        encoder: whose convolution, kernels, norm and activation.
        channels, width: before and behind.
        level: stage whose kernel is used.
        step: stride per axis of the first convolution.
    """

    def __init__(self, encoder: VNetEncoder, channels: int, width: int, level: int, step: Sequence[int]) -> None:
        super().__init__()
        conv_op, norm_op, norms = encoder.conv_op, encoder.norm_op, encoder.norm_op_kwargs or {}
        kernel = maybe_convert_scalar_to_list(conv_op, encoder.kernel_sizes[level])
        padding = [k // 2 for k in kernel]
        self.first = conv_op(channels, width, kernel, tuple(step), padding, bias=False)
        self.first_norm = norm_op(width, **norms)
        self.second = conv_op(width, width, kernel, 1, padding, bias=False)
        self.second_norm = norm_op(width, **norms)
        self.activation = activation(encoder)
        fits = channels == width and all(s == 1 for s in step)
        self.shortcut: nn.Module = (
            nn.Identity()
            if fits
            else nn.Sequential(conv_op(channels, width, 1, tuple(step), bias=False), norm_op(width, **norms))
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, *S) -> (B, width, *S / step)."""
        inner = self.activation(self.first_norm(self.first(features)))
        result: Tensor = self.activation(self.second_norm(self.second(inner)) + self.shortcut(features))
        return result


def activation(encoder: VNetEncoder) -> nn.Module:
    return encoder.nonlin(**(encoder.nonlin_kwargs or {})) if encoder.nonlin is not None else nn.Identity()


__all__ = ["ResVNet"]
