"""Convolutions within each channel or each voxel with a backward pass that a CPU does fast.

oneDNN takes five to ten times a forward pass for either gradient of a depth-wise convolution. Both are convolutions
again, which it does as fast as the forward one. Elsewhere, and in mixed precision, PyTorch's own are called.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Depthwise(torch.autograd.Function):
    """The convolution, stride 1, of (B, C, *S) with an odd kernel (C, 1, *k) whose padding keeps the size."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(features, weight)
        return _within_channels(features, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        features, weight = ctx.saved_tensors
        (gradient,) = gradients
        of_features = of_weight = None
        if ctx.needs_input_grad[0]:
            of_features = _within_channels(gradient, weight.flip([*range(2, weight.ndim)]))
        if ctx.needs_input_grad[1]:
            of_weight = _of_kernel(features, gradient, weight)
        return of_features, of_weight


def _within_channels(features: Tensor, weight: Tensor) -> Tensor:
    padding = [k // 2 for k in weight.shape[2:]]
    return _convolve(features, weight, padding)


def _of_kernel(features: Tensor, gradient: Tensor, weight: Tensor) -> Tensor:
    """Each channel of each sample convolved with its own gradient, then the sum over samples."""
    batch, channels = features.shape[:2]
    alone = features.reshape(1, batch * channels, *features.shape[2:])
    kernel = gradient.reshape(batch * channels, 1, *gradient.shape[2:])
    padding = [k // 2 for k in weight.shape[2:]]
    return _convolve(alone, kernel, padding).view(batch, channels, *weight.shape[1:]).sum(0)


def _convolve(features: Tensor, weight: Tensor, padding: list[int]) -> Tensor:
    convolve = F.conv3d if features.ndim == 5 else F.conv2d
    return convolve(features, weight, padding=padding, groups=features.shape[1])


def depthwise(conv: Any, features: Tensor) -> Tensor:
    """conv(features), for a depth-wise convolution that keeps the size or has a stride.

    Args:
        conv: nn.Conv2d or nn.Conv3d with as many groups as channels and a padding of half of its odd kernel.
        features: (B, C, *S).
    """
    if not _on_plain_cpu(features) or any(s > 1 for s in conv.stride):
        return cast(Tensor, conv(features))
    convolved = cast(Tensor, _Depthwise.apply(features, conv.weight))
    return convolved if conv.bias is None else convolved + _along(conv.bias, features)


def expand(conv: Any, features: Tensor) -> Tensor:
    """conv(features) of a grouped 1x1 convolution that makes e channels of each: (B, C, *S) -> (B, C e, *S)."""
    if not _on_plain_cpu(features):
        return cast(Tensor, conv(features))
    channels = features.shape[1]
    weight, bias = (p.view(1, channels, -1, *[1] * (features.ndim - 2)) for p in (conv.weight, conv.bias))
    return torch.addcmul(bias, features.unsqueeze(2), weight).flatten(1, 2)


def reduce(conv: Any, features: Tensor) -> Tensor:
    """conv(features) of a grouped 1x1 convolution that makes one channel of each e: (B, C e, *S) -> (B, C, *S)."""
    if not _on_plain_cpu(features):
        return cast(Tensor, conv(features))
    weight = conv.weight.view(1, len(conv.weight), -1, *[1] * (features.ndim - 2))
    products = features.unflatten(1, (len(conv.weight), -1)) * weight
    return products.sum(2) + _along(conv.bias, features)


class Pointwise3d(nn.Conv3d):
    """A 1 x 1 x 1 convolution, on a CPU as the product of matrices that it is: backwards in half the time."""

    def forward(self, input: Tensor) -> Tensor:
        if not _on_plain_cpu(input):
            return super().forward(input)
        weight = self.weight.flatten(1).expand(len(input), -1, -1)
        features = input.flatten(2)
        if self.bias is None:
            return (weight @ features).unflatten(2, input.shape[2:])
        return torch.baddbmm(self.bias[:, None], weight, features).unflatten(2, input.shape[2:])


def _on_plain_cpu(features: Tensor) -> bool:
    return features.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def _along(bias: Tensor, features: Tensor) -> Tensor:
    return bias.view(1, -1, *[1] * (features.ndim - 2))
