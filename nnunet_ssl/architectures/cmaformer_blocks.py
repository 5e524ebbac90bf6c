"""The convolutional parts of CMAformer, in two or three dimensions.

Source: Zheng et al., "Lagrange Duality and Compound Multi-Attention Transformer for Semi-Supervised Medical Image
Segmentation" (arXiv:2409.07793), Fig. 2, in the sizes of the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_ssl.architectures.channel_norm import ChannelNorm

CONVOLUTIONS: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
REDUCTION = 16  # of the channels inside channel attention


@dataclass(frozen=True)
class Ops:
    """What every block is made of.

    Attributes:
        dimensions: 2 or 3.
        norm_op, norm_op_kwargs: as in nnU-Net's plans.
    """

    dimensions: int
    norm_op: type[nn.Module]
    norm_op_kwargs: dict[str, Any] = field(default_factory=dict)

    def conv(
        self,
        inputs: int,
        outputs: int,
        kernel: Sequence[int] | int = 1,
        stride: Sequence[int] | int = 1,
        dilation: Sequence[int] | int = 1,
        groups: int = 1,
    ) -> nn.Module:
        """A convolution with bias, padded so that stride 1 keeps the size."""
        kernel, stride, dilation = (self.per_axis(x) for x in (kernel, stride, dilation))
        padding = tuple(k // 2 * d for k, d in zip(kernel, dilation, strict=True))
        return CONVOLUTIONS[self.dimensions](inputs, outputs, kernel, stride, padding, dilation, groups)

    def norm(self, channels: int) -> nn.Module:
        return self.norm_op(channels, **self.norm_op_kwargs)

    def per_axis(self, value: Sequence[int] | int) -> tuple[int, ...]:
        return (value,) * self.dimensions if isinstance(value, int) else tuple(value)


class PatchEmbedding(nn.Module):
    """Overlapping strided convolution, pixel attention x sigmoid(depthwise(x)), layer norm over channels.

    The map stays a map: the authors' code reads it as tokens of another order, which mixes channels with positions.
    """

    def __init__(self, ops: Ops, inputs: int, outputs: int, kernel: Sequence[int] | int, stride: Sequence[int] | int):
        super().__init__()
        self.embed = ops.conv(inputs, outputs, kernel, stride)
        self.pixel = ops.conv(outputs, outputs, kernel, groups=outputs)
        self.norm = ChannelNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.norm(x * self.pixel(x).sigmoid()).to(x.dtype)


class ChannelAttention(nn.Module):
    """Squeeze and excitation: x sigmoid(linear(relu(linear(mean of x)))), without biases."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // REDUCTION)
        self.squeeze = nn.Linear(channels, inner, bias=False)
        self.excite = nn.Linear(inner, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.excite(self.squeeze(x.flatten(2).mean(2)).relu()).sigmoid()
        return x * scale.view(*scale.shape, *[1] * (x.ndim - 2))


class ResidualConv(nn.Module):
    """norm-relu-conv-norm-relu-conv, plus norm(conv(x)); both paths are convolutions, also where shapes agree."""

    def __init__(
        self, ops: Ops, inputs: int, outputs: int, kernel: Sequence[int] | int, stride: Sequence[int] | int = 1
    ) -> None:
        super().__init__()
        self.main = nn.Sequential(
            ops.norm(inputs),
            nn.ReLU(),
            ops.conv(inputs, outputs, kernel, stride),
            ops.norm(outputs),
            nn.ReLU(),
            ops.conv(outputs, outputs, kernel),
        )
        self.skip = nn.Sequential(ops.conv(inputs, outputs, kernel, stride), ops.norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x) + self.skip(x)


class Stem(nn.Module):
    """conv-norm-relu-conv, plus a convolution of the image."""

    def __init__(self, ops: Ops, inputs: int, outputs: int, kernel: Sequence[int] | int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            ops.conv(inputs, outputs, kernel), ops.norm(outputs), nn.ReLU(), ops.conv(outputs, outputs, kernel)
        )
        self.skip = ops.conv(inputs, outputs, kernel)

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x) + self.skip(x)


class AtrousPyramid(nn.Module):
    """The "spatial attention": three dilated conv-relu-norm branches, joined by a 1x1 convolution.

    Args:
        dilations: three, each a number or one per axis; see :func:`fitted_dilations`.
    """

    def __init__(
        self,
        ops: Ops,
        inputs: int,
        outputs: int,
        kernel: Sequence[int] | int,
        dilations: Sequence[Sequence[int] | int],
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(ops.conv(inputs, outputs, kernel, dilation=rate), nn.ReLU(), ops.norm(outputs))
            for rate in dilations
        )
        self.join = ops.conv(len(dilations) * outputs, outputs)
        for branch in self.branches:
            nn.init.kaiming_normal_(branch[0].weight, nonlinearity="relu")  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        return self.join(torch.cat([branch(x) for branch in self.branches], 1))


def fitted_dilations(size: Sequence[int]) -> list[tuple[int, ...]]:
    """Dilations 6, 12 and 18, per axis no larger than a map of that size has a use for.

    At 16 positions a dilation of 18 sees its centre alone. Recommended: min(6 i, max(1, floor((m - 1) i / 4))).
    """
    return [tuple(min(6 * i, max(1, (m - 1) * i // 4)) for m in size) for i in (1, 2, 3)]


class ScalarGate(nn.Module):
    """The "cross-attention" of the authors' code: psi(e, d) d, one signed and unbounded scalar per position.

    psi = conv1x1(relu(norm(conv(relu(norm(e))) + conv(relu(norm(d)))))).

    Args:
        encoded, decoded: channels of e and d.
        bounded: psi through a sigmoid, an option for half precision and large learning rates.
    """

    def __init__(
        self, ops: Ops, encoded: int, decoded: int, kernel: Sequence[int] | int, bounded: bool = False
    ) -> None:
        super().__init__()
        self.of_encoded, self.of_decoded = (
            nn.Sequential(ops.norm(channels), nn.ReLU(), ops.conv(channels, decoded, kernel))
            for channels in (encoded, decoded)
        )
        self.to_scalar = nn.Sequential(ops.norm(decoded), nn.ReLU(), ops.conv(decoded, 1))
        self.bounded = bounded

    def psi(self, encoded: Tensor, decoded: Tensor) -> Tensor:
        """(B, 1, *S)."""
        scalar = self.to_scalar(self.of_encoded(encoded) + self.of_decoded(decoded))
        return scalar.sigmoid() if self.bounded else scalar

    def forward(self, encoded: Tensor, decoded: Tensor) -> Tensor:
        return self.psi(encoded, decoded) * decoded
