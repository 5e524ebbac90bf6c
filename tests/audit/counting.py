"""Standard plans, and what a network on them costs in a forward, counted from shapes alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from nnunet_ssl.planning.counted_step import CountedStep
from nnunet_ssl.planning.shapes_alone import META
from tests.saved_memory import saved_floats


@dataclass(frozen=True)
class Plan:
    """One of nnU-Net's, with kernels of 3 and strides of 2.

    Attributes:
        thin_strides: levels whose stride leaves the first axis alone.
        thin_kernels: so many first levels have a kernel of 1 along it.
    """

    patch: tuple[int, ...]
    features: tuple[int, ...]
    thin_strides: tuple[int, ...] = ()
    thin_kernels: int = 0

    @property
    def strides(self) -> list[list[int]]:
        axes = len(self.patch)
        strides = [[1] * axes, *([2] * axes for _ in self.features[1:])]
        for level in self.thin_strides:
            strides[level][0] = 1
        return strides

    @property
    def kernels(self) -> list[list[int]]:
        axes = len(self.patch)
        return [[1 if level < self.thin_kernels else 3, *[3] * (axes - 1)] for level in range(len(self.features))]

    @property
    def arguments(self) -> dict[str, Any]:
        """What networks of this package and nnU-Net's own read from plans."""
        flat = len(self.patch) == 2
        return {
            "n_stages": len(self.features),
            "features_per_stage": list(self.features),
            "conv_op": nn.Conv2d if flat else nn.Conv3d,
            "kernel_sizes": self.kernels,
            "strides": self.strides,
            "norm_op": nn.InstanceNorm2d if flat else nn.InstanceNorm3d,
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        }

    def unet(self) -> PlainConvUNet:
        """nnU-Net's own network."""
        return PlainConvUNet(
            1, n_conv_per_stage=2, num_classes=2, n_conv_per_stage_decoder=2, conv_bias=True, nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True}, **self.arguments,
        )  # fmt: skip


STANDARD_3D = Plan((128, 128, 128), (32, 64, 128, 256, 320, 320))
STANDARD_2D = Plan((512, 512), (32, 64, 128, 256, 512, 512, 512, 512))
ANISOTROPIC = Plan((40, 224, 192), (32, 64, 128, 256, 320, 320), thin_strides=(1, 5), thin_kernels=1)
LEFT_ATRIUM = Plan((80, 112, 112), (48, 96, 192, 384, 768))
FOUR_STAGES = Plan((40, 56, 40), (16, 32, 64, 128))


def cost(build: Callable[[], nn.Module], plan: Plan) -> tuple[int, float]:
    """(operations, floats kept for the backward pass) of a forward of one image.

    A multiplication and an addition are two operations.
    """
    with torch.device(META):
        net, image = build(), torch.empty(1, 1, *plan.patch)
    with CountedStep(META) as counted:
        kept = saved_floats(net, lambda: net(image))
    return counted.forward, kept


@cache
def unet_cost(plan: Plan) -> tuple[int, float]:
    """That of nnU-Net's own network."""
    return cost(plan.unet, plan)
