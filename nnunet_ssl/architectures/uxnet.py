"""3D UX-Net: a U-Net whose encoder is built of large depth-wise convolutions, in two or three dimensions.

Source: Lee et al., "3D UX-Net" (ICLR 2023), as DKUXNet (Wu, Li & Zhang, ISBI 2024) uses it. Level 0 is full resolution,
level l that after the first l strides, S the number of levels; `*S_l` stands for the spatial size at level l.
"""

from __future__ import annotations

import inspect
import pydoc
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, cast

import torch
from dynamic_network_architectures.building_blocks.helper import (
    convert_conv_op_to_dim,
    get_matching_convtransp,
    maybe_convert_scalar_to_list,
)
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_ssl.architectures.channel_norm import ChannelNorm
from nnunet_ssl.architectures.depthwise import depthwise, expand, reduce
from nnunet_ssl.architectures.recompute import maybe_recompute, residual

Convolution = type[Any]  # nn.Conv2d or nn.Conv3d
LARGE = 7  # kernel of the depth-wise convolutions
EXPANSION = 4
LAYER_SCALE = 1e-6


class UXBlock(nn.Module):
    """x + scale * reduce(GELU(expand(norm(depthwise(x))))), (B, C, *S) -> the same.

    Both 1x1 convolutions are grouped by channel: they mix none. The scale starts at 1e-6, so that the block starts as
    the identity.

    Args:
        channels: C; a block with kernel 7 x 7 x 7 has 360 C parameters.
        kernel: of the depth-wise convolution, one odd number per axis.
        conv_op: nn.Conv2d or nn.Conv3d.
        recompute: of all that follows the depth-wise convolution keep nothing, see :func:`maybe_recompute`.
    """

    def __init__(
        self, channels: int, kernel: Sequence[int], conv_op: Convolution, recompute: bool | None = False
    ) -> None:
        super().__init__()
        self.recompute = recompute
        padding = [k // 2 for k in kernel]
        self.depthwise = conv_op(channels, channels, tuple(kernel), padding=tuple(padding), groups=channels)
        self.norm = ChannelNorm(channels)
        self.expand = conv_op(channels, EXPANSION * channels, 1, groups=channels)
        self.reduce = conv_op(EXPANSION * channels, channels, 1, groups=channels)
        self.scale = nn.Parameter(torch.full((channels, *[1] * len(kernel)), LAYER_SCALE))

    def forward(self, features: Tensor) -> Tensor:
        run = maybe_recompute(self.recompute, features)
        return features + cast(Tensor, run(self.update, depthwise(self.depthwise, features)))

    def update(self, hidden: Tensor) -> Tensor:
        return self.scale * reduce(self.reduce, F.gelu(expand(self.expand, self.norm(hidden))))


class Levels:
    """The plans' numbers per level, whatever their notation.

    Attributes:
        features, kernels, strides: one entry per level; the latter two have one number per axis.
        total_stride: product of the strides, one number per axis.
        conv_op: nn.Conv2d or nn.Conv3d.

    Raises:
        ValueError: lists of different lengths, fewer than two levels, a stride at level 0 or an even kernel.
    """

    def __init__(
        self,
        n_stages: int,
        features_per_stage: int | Sequence[int],
        conv_op: Convolution,
        kernel_sizes: Any,
        strides: Any,
    ) -> None:
        def per_level(values: Any) -> list[Any]:
            return [values] * n_stages if isinstance(values, int) else list(values)

        self.conv_op = conv_op
        self.dimensions: int = convert_conv_op_to_dim(conv_op)
        self.features: list[int] = per_level(features_per_stage)
        self.kernels, self.strides = (
            [[int(n) for n in maybe_convert_scalar_to_list(conv_op, value)] for value in per_level(values)]
            for values in (kernel_sizes, strides)
        )
        if n_stages < 2 or not len(self.features) == len(self.kernels) == len(self.strides) == n_stages:
            raise ValueError(
                f"features_per_stage, kernel_sizes and strides must have n_stages = {n_stages} entries, at least 2"
            )
        if any(s != 1 for s in self.strides[0]):
            raise ValueError(f"the first stage must have stride 1, got {self.strides[0]}")
        if any(k % 2 == 0 for kernel in self.kernels for k in kernel):
            raise ValueError(f"kernel_sizes must be odd, got {self.kernels}")
        # plain numbers, made here: torch.compile takes NumPy's for tensors
        self.total_stride = [prod(of_axis) for of_axis in zip(*self.strides, strict=True)]

    def __len__(self) -> int:
        return len(self.features)

    def enlarged(self, level: int, size: int) -> list[int]:
        """A kernel of this size along the axes where the plans have more than 1, so that thin axes stay apart."""
        return [size if k > 1 else 1 for k in self.kernels[level]]

    def check_size(self, size: Sequence[int]) -> None:
        """Raise ValueError for a spatial size that the strides do not divide."""
        if any(n % s for n, s in zip(size, self.total_stride, strict=True)):
            raise ValueError(
                f"the patch size {list(size)} must be divisible by the product of the strides, {self.total_stride}"
            )


class UXNetTrunk(nn.Module):
    """Stem and stages of UX blocks: (B, C, *S_0) -> normalised maps of the levels 1 to S - 1, of width f_{l-1}.

    Args:
        input_channels: C.
        levels: of the plans.
        blocks: per stage.
        recompute: see :class:`UXBlock`.
    """

    def __init__(self, input_channels: int, levels: Levels, blocks: int = 2, recompute: bool | None = False) -> None:
        super().__init__()
        self.downsample, self.stages, self.norms = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        conv_op, before = levels.conv_op, input_channels
        for level in range(1, len(levels)):
            width, stride, kernel = levels.features[level - 1], levels.strides[level], levels.enlarged(level, LARGE)
            if level == 1:
                padding = tuple(k // 2 for k in kernel)
                stem = conv_op(before, width, tuple(kernel), tuple(stride), padding)
                self.downsample.append(nn.Sequential(stem, ChannelNorm(width)))
            else:
                reduction = conv_op(before, width, tuple(stride), tuple(stride))
                self.downsample.append(nn.Sequential(ChannelNorm(before), reduction))
            self.stages.append(nn.Sequential(*(UXBlock(width, kernel, conv_op, recompute) for _ in range(blocks))))
            self.norms.append(ChannelNorm(width))
            before = width

    def forward(self, images: Tensor) -> list[Tensor]:
        maps, features = [], images
        for downsample, stage, norm in zip(self.downsample, self.stages, self.norms, strict=True):
            features = stage(downsample(features))  # the next stage gets the map without this norm
            maps.append(norm(features))
        return maps


class UXNetEncoder(nn.Module):
    """Trunk and a residual block on each level's map: (B, C, *S_0) -> S maps (B, f_l, *S_l), level 0 on the raw image.

    Args:
        recompute: keep no activations but the outputs of convolutions, see :mod:`nnunet_ssl.architectures.recompute`.
    """

    def __init__(self, input_channels: int, levels: Levels, blocks: int = 2, recompute: bool | None = False) -> None:
        super().__init__()
        self.levels, self.recompute = levels, recompute
        self.trunk = UXNetTrunk(input_channels, levels, blocks, recompute)
        widths = [input_channels, *levels.features[:-1]]
        self.skips = nn.ModuleList(
            residual_block(levels, level, width, levels.features[level]) for level, width in enumerate(widths)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        self.levels.check_size(images.shape[2:])
        maps = [images, *self.trunk(images)]
        return [
            residual(skip, x, self.recompute, of_image=level == 0, copied=level < len(maps) - 1)
            for level, (skip, x) in enumerate(zip(self.skips, maps, strict=True))
        ]


class UXNetDecoder(nn.Module):
    """Transposed convolutions and residual blocks: the encoder's S maps -> maps (B, f_l, *S_l), l = S - 2 to 0.

    Args:
        num_classes: adds an output per level, in the order of the maps (see ``segment``); ``None`` for none.
        recompute: as the encoder's.
    """

    deep_supervision: bool = False

    def __init__(self, levels: Levels, num_classes: int | None = None, recompute: bool | None = False) -> None:
        super().__init__()
        self.recompute = recompute
        self.upsample, self.blocks = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(levels) - 1)):
            width, stride = levels.features[level], tuple(levels.strides[level + 1])
            transposed = get_matching_convtransp(levels.conv_op)
            self.upsample.append(transposed(levels.features[level + 1], width, stride, stride, bias=False))
            self.blocks.append(residual_block(levels, level, 2 * width, width))
        if num_classes is not None:
            self.head = residual_block(levels, 0, levels.features[0], levels.features[0])
            widths = reversed(levels.features[:-1])
            self.seg_layers = nn.ModuleList(levels.conv_op(width, num_classes, 1) for width in widths)

    def forward(self, skips: Sequence[Tensor]) -> list[Tensor]:
        maps, features = [], skips[-1]
        for upsample, block, skip in zip(self.upsample, self.blocks, reversed(skips[:-1]), strict=True):
            features = residual(block, torch.cat((upsample(features), skip), 1), self.recompute)
            maps.append(features)
        return maps

    def segment(self, maps: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Logits (B, K, *S_0), or with deep supervision those of the levels 0 to S - 2."""
        finest = self.seg_layers[-1](self.head(maps[-1]))
        if not self.deep_supervision:
            return cast(Tensor, finest)
        return [finest, *(head(x) for head, x in zip(self.seg_layers[-2::-1], maps[-2::-1], strict=True))]


class UXNet(nn.Module):
    """3D UX-Net as nnU-Net builds a network: plans may name ``nnunet_ssl.architectures.uxnet.UXNet``.

    Args:
        input_channels, num_classes: C and K.
        n_stages, features_per_stage, conv_op, kernel_sizes, strides: nnU-Net's plans keys; features f_l of level l, the
            trunk has those of the level above. A kernel of the plans larger than 1 becomes 7 in the trunk.
        deep_supervision: logits of all levels but the last, the finest first; nnU-Net switches ``decoder``'s.
        ux_blocks: per stage of the encoder.
        recompute: less memory, more time; see :class:`UXNetEncoder`.
        unused: keys of nnU-Net's plans that mean nothing here, see :data:`UNUSED`.

    Raises:
        ValueError: numbers that do not fit together; in ``forward`` a patch size that the strides do not divide.
        TypeError: an unknown key.
    """

    def __init__(
        self,
        input_channels: int,
        n_stages: int,
        features_per_stage: int | Sequence[int],
        conv_op: Convolution,
        kernel_sizes: Any,
        strides: Any,
        num_classes: int,
        deep_supervision: bool = False,
        *,
        ux_blocks: int = 2,
        recompute: bool | None = False,
        **unused: Any,
    ) -> None:
        super().__init__()
        check_unused(unused)
        levels = Levels(n_stages, features_per_stage, conv_op, kernel_sizes, strides)
        self.encoder = UXNetEncoder(input_channels, levels, ux_blocks, recompute)
        self.decoder = UXNetDecoder(levels, num_classes, recompute)
        self.decoder.deep_supervision = deep_supervision

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """(B, C, *S_0) -> logits (B, K, *S_0), or a list with deep supervision."""
        return self.decoder.segment(self.decoder(self.encoder(images)))


UNUSED = (
    "n_conv_per_stage",
    "n_blocks_per_stage",
    "n_conv_per_stage_decoder",
    "conv_bias",
    "norm_op",
    "norm_op_kwargs",
    "dropout_op",
    "dropout_op_kwargs",
    "nonlin",
    "nonlin_kwargs",
)
"""Keys of nnU-Net's U-Nets in a plans file that this network accepts without effect."""


def check_unused(keys: Any) -> None:
    """Raise TypeError for keys that are not nnU-Net's."""
    unknown = sorted(set(keys) - set(UNUSED))
    if unknown:
        raise TypeError(f"unknown arguments of the architecture: {', '.join(unknown)}")


PLANS_KEYS = ("n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides")


def arguments_from_plans(
    network: type[nn.Module], name: str, kwargs: Mapping[str, Any], requires_import: Sequence[str]
) -> dict[str, Any]:
    """What a network of this package takes from the architecture in the plans, whose class it need not be.

    Args:
        network: :class:`UXNet` or another with its arguments.
        name, kwargs, requires_import: the class, the arguments and those given as dotted paths, as the plans have them.

    Returns:
        All arguments, where the plans name the network itself; else those that it knows.

    Raises:
        NotImplementedError: the plans' architecture lacks one of :data:`PLANS_KEYS`.
    """
    missing = [key for key in PLANS_KEYS if key not in kwargs]
    if missing:
        raise NotImplementedError(f"{network.__name__} cannot be built from plans of {name} without {missing}")
    located = {k: pydoc.locate(v) if k in requires_import and v is not None else v for k, v in kwargs.items()}
    if name == f"{network.__module__}.{network.__name__}":
        return located
    known = inspect.signature(network).parameters
    return {k: v for k, v in located.items() if k in known}


def residual_block(levels: Levels, level: int, before: int, after: int) -> nn.Module:
    """Two convolutions with the plans' kernel and instance norm around a shortcut, which is 1x1 where widths differ."""
    from monai.networks.blocks.dynunet_block import UnetResBlock  # here: importing MONAI takes most of a second

    return UnetResBlock(levels.dimensions, before, after, tuple(levels.kernels[level]), 1, "instance")
