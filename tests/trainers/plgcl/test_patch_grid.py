"""Windows that fit the encoder: sizes of the specification, and no instance norm of a single position."""

from __future__ import annotations

import math
from contextlib import nullcontext

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunet_ssl.architectures.projection import pooled_features
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.trainers.plgcl.patch_grid import plan_grid


def halving(stages: int, axes: int) -> list[list[int]]:
    return [[1] * axes, *[[2] * axes] * (stages - 1)]


ANISOTROPIC = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2], [1, 2, 2]]
PLANS = [
    pytest.param([128] * 3, halving(6, 3), 4, (4, (32, 32, 32), 64), id="3D"),
    pytest.param([256] * 2, halving(7, 2), 16, (5, (64, 64), 16), id="2D, stride 64"),
    pytest.param([256] * 2, halving(5, 2), 16, (4, (64, 64), 16), id="2D, stride 16"),
    pytest.param([20, 256, 224], ANISOTROPIC, 4, (5, (4, 64, 64), 80), id="anisotropic"),
    pytest.param([40, 56, 40], halving(4, 3), 4, (2, (12, 16, 12), 64), id="benchmark"),
    pytest.param([16] * 3, halving(3, 3), 4, (1, (4, 4, 4), 64), id="tiny"),
]


@pytest.mark.parametrize("crop, strides, batch, expected", PLANS)
def test_sizes_of_the_rule(crop, strides, batch, expected):
    grid = plan_grid(crop, strides, batch, 20)
    assert (grid.stage, grid.size, grid.number) == expected
    assert grid.voxels == math.prod(grid.size)


def test_windows_overlap_where_there_would_be_too_few():
    few = plan_grid([64, 64], halving(4, 2), batch=2, neighbours=20)  # 2 x 16 windows for 84
    assert few.size == (16, 16) and few.starts == ((0, 8, 16, 24, 32, 40, 48),) * 2
    enough = plan_grid([64, 64], halving(4, 2), batch=2, neighbours=7)
    assert enough.starts == ((0, 16, 32, 48),) * 2
    batch = plan_grid([64, 64], halving(4, 2), batch=6, neighbours=20)
    assert batch.starts == enough.starts


def test_a_last_window_is_flush_with_the_border():
    grid = plan_grid([40, 56], halving(3, 2), batch=100, neighbours=20)
    assert grid.size == (12, 16) and grid.starts == ((0, 12, 24, 28), (0, 16, 32, 40))
    assert grid.number == 16


def test_explicit_size_and_bottleneck():
    six = halving(6, 3)
    assert plan_grid([128] * 3, six, 4, 20, size=[64, 64, 64]).stage == 5
    assert plan_grid([128] * 3, six, 4, 20, size=[32, 32, 64]).stage == 4  # 1 x 1 x 2 positions are too few
    assert plan_grid([128] * 3, six, 4, 20, size=[24, 24, 24]).stage == 3
    given = plan_grid([128] * 3, six, 4, 20, size=[64, 64, 128], embed_stage="bottleneck")
    assert (given.stage, given.size) == (5, (64, 64, 128))
    deepest = plan_grid([128] * 3, six, 4, 20, embed_stage="bottleneck")
    assert (deepest.stage, deepest.size) == (5, (64, 64, 64))


@pytest.mark.parametrize(
    "options",
    [
        {"size": [256, 64, 64]},
        {"size": [64, 64]},
        {"size": [32, 32, 32], "embed_stage": "bottleneck"},
        {"size": [32, 64, 128], "embed_stage": "bottleneck"},  # 8 positions, but one alone on the first axis
        {"size": [1, 1, 1]},
        {"size": [0, 64, 64]},
    ],
)
def test_what_does_not_fit_is_explained(options):
    with pytest.raises(SemiSupervisedError, match=r"do not fit a training patch of \[128, 128, 128\]"):
        plan_grid([128] * 3, halving(6, 3), 4, 20, **options)
    with pytest.raises(SemiSupervisedError, match=r"No windows fit .*\n.*patch_size"):
        plan_grid([2, 2], [[1, 1], [2, 2]], 2, 20, embed_stage="bottleneck")


def unet(residual: bool, strides: list[list[int]]) -> nn.Module:
    axes, stages = len(strides[0]), len(strides)
    conv, norm = ((nn.Conv2d, nn.InstanceNorm2d), (nn.Conv3d, nn.InstanceNorm3d))[axes - 2]
    blocks = {("n_blocks_per_stage" if residual else "n_conv_per_stage"): [1] * stages}
    return (ResidualEncoderUNet if residual else PlainConvUNet)(
        1, stages, [2] * stages, conv, 3, strides, num_classes=2, n_conv_per_stage_decoder=[1] * (stages - 1),
        conv_bias=True, norm_op=norm, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU, **blocks,
    )  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("crop, strides, batch, expected", PLANS)
def test_no_window_fails_in_an_instance_norm(crop, strides, batch, expected, residual, training):
    grid = plan_grid(crop, strides, batch, 20)
    encoder = unet(residual, strides).train(training).encoder
    with torch.no_grad():
        assert pooled_features(encoder, torch.randn(1, 1, *grid.size), grid.stage).shape == (1, 2)


@pytest.mark.parametrize(
    "residual, stage, edge, message",
    [
        *((False, 5, edge, "more than 1 spatial element") for edge in (16, 24, 32)),
        *((False, 5, edge, None) for edge in (48, 64)),
        (False, 4, 16, "more than 1 spatial element"),
        *((False, 4, edge, None) for edge in (25, 32, 33)),
        (True, 4, 40, "must match the size"),
        *((True, 4, edge, None) for edge in (32, 48, 64)),
    ],
)
def test_the_failures_that_the_rule_avoids(residual, stage, edge, message):
    """Edges of cubes that encoders of six stages take, as measured for the specification (i.3)."""
    encoder = unet(residual, halving(6, 3)).eval().encoder
    with pytest.raises((ValueError, RuntimeError), match=message) if message else nullcontext(), torch.no_grad():
        pooled_features(encoder, torch.zeros(1, 1, edge, edge, edge), stage)
