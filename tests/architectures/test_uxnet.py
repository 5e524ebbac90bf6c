"""3D UX-Net: published sizes, plans of every kind, deep supervision and the errors for plans that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from nnunet_ssl.architectures.channel_norm import ChannelNorm
from nnunet_ssl.architectures.uxnet import Levels, UXBlock, UXNet, UXNetDecoder, UXNetEncoder

ISOTROPIC = {"kernel_sizes": [[3] * 3] * 3, "strides": [[1] * 3, [2] * 3, [2] * 3]}
ANISOTROPIC = {"kernel_sizes": [[1, 3, 3], [1, 3, 3], [3, 3, 3]], "strides": [[1] * 3, [1, 2, 2], [2, 2, 2]]}
FLAT = {"kernel_sizes": [[3] * 2] * 3, "strides": [[1] * 2, [2] * 2, [2] * 2]}
PLANS = [(nn.Conv3d, (8, 16, 8), ISOTROPIC), (nn.Conv3d, (4, 16, 16), ANISOTROPIC), (nn.Conv2d, (16, 24), FLAT)]


def size(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def published_levels() -> Levels:
    return Levels(5, [48, 96, 192, 384, 768], nn.Conv3d, 3, [1, 2, 2, 2, 2])


def tiny(conv_op: Any, plan: dict[str, Any], **options: Any) -> UXNet:
    torch.manual_seed(0)
    return UXNet(1, 3, [4, 8, 8], conv_op, num_classes=3, **plan, **options)


# ---- the published network


def test_published_parameter_counts():
    with torch.device("meta"):
        levels = published_levels()
        encoder, decoder = UXNetEncoder(1, levels), UXNetDecoder(levels)
        assert size(UXBlock(48, [7] * 3, nn.Conv3d)) == 17_280 == 360 * 48
        assert size(encoder.trunk) == 1_311_936
        assert size(encoder, decoder) == 52_881_408
        net = UXNet(1, 5, [48, 96, 192, 384, 768], nn.Conv3d, 3, [1, 2, 2, 2, 2], 2)
        assert (size(net.decoder.head), size(net.decoder.seg_layers[-1])) == (124_416, 98)
        six = Levels(6, [32, 64, 128, 256, 320, 320], nn.Conv3d, 3, [1, 2, 2, 2, 2, 2])
        assert size(UXNetEncoder(1, six), UXNetDecoder(six)) == pytest.approx(33.3e6, abs=5e4)


def test_published_shapes():
    with torch.device("meta"):
        levels = published_levels()
        encoder, decoder = UXNetEncoder(1, levels), UXNetDecoder(levels)
        images = torch.empty(2, 1, 32, 32, 32)
        trunk = encoder.trunk(images)
        maps = decoder(encoder(images))
    assert [tuple(x.shape[1:3]) for x in trunk] == [(48, 16), (96, 8), (192, 4), (384, 2)]
    assert [tuple(x.shape[1:3]) for x in maps] == [(384, 4), (192, 8), (96, 16), (48, 32)]


def test_a_block_starts_as_the_identity():
    torch.manual_seed(0)
    block, features = UXBlock(8, [7] * 3, nn.Conv3d), torch.randn(2, 8, 6, 6, 6)
    difference = (block(features) - features).abs().max()
    assert 0 < difference < 1e-4


def test_a_block_mixes_channels_in_its_norm_alone():
    torch.manual_seed(0)
    block = UXBlock(3, [3] * 2, nn.Conv2d)
    block.norm = nn.Identity()
    nn.init.ones_(block.scale)
    features = torch.randn(1, 3, 5, 5)
    changed = features.clone()
    changed[:, 1] += 1
    moved = (block(changed) - block(features)).abs().amax((0, 2, 3))
    assert moved[1] > 0.1 and moved[0] == moved[2] == 0


def test_channel_norm():
    norm, features = ChannelNorm(4), 100 + 300 * torch.randn(2, 4, 3, 5)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        norm.bias.fill_(0.5)
    mean, variance = features.mean(1, keepdim=True), features.var(1, keepdim=True, unbiased=False)
    expected = (features - mean) / (variance + 1e-6).sqrt() * norm.weight.view(1, 4, 1, 1) + 0.5
    torch.testing.assert_close(norm(features), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert norm(features.bfloat16()).dtype == torch.float32


# ---- plans


@pytest.mark.parametrize(("conv_op", "patch", "plan"), PLANS, ids=["3d", "anisotropic", "2d"])
def test_plans_of_every_kind(conv_op, patch, plan):
    net = tiny(conv_op, plan)
    images = torch.randn(2, 1, *patch)
    logits = net(images)
    assert logits.shape == (2, 3, *patch)
    logits.square().mean().backward()
    coarse = {id(p) for p in net.decoder.seg_layers[:-1].parameters()}
    assert all((p.grad is not None and p.grad.any()) != (id(p) in coarse) for p in net.parameters())
    maps = net.encoder(images)
    strides = torch.tensor(plan["strides"]).cumprod(0)
    assert [x.shape[2:] for x in maps] == [torch.Size((torch.tensor(patch) // s).tolist()) for s in strides]


def test_kernels_follow_the_plans():
    net = tiny(nn.Conv3d, ANISOTROPIC)
    trunk = net.encoder.trunk
    assert trunk.downsample[0][0].kernel_size == (1, 7, 7) == trunk.stages[0][0].depthwise.kernel_size
    assert trunk.stages[1][1].depthwise.kernel_size == (7, 7, 7)
    assert trunk.downsample[1][1].kernel_size == (2, 2, 2) == net.decoder.upsample[0].kernel_size
    assert net.encoder.skips[0].conv1.conv.kernel_size == (1, 3, 3)


def test_two_dimensions_are_three_with_one_slice():
    thin = {"kernel_sizes": [[1, 3, 3]] * 3, "strides": [[1] * 3, [1, 2, 2], [1, 2, 2]]}
    flat, deep = tiny(nn.Conv2d, FLAT).eval(), tiny(nn.Conv3d, thin).eval()
    for p, q in zip(flat.parameters(), deep.parameters(), strict=True):
        q.data.copy_(p.data.reshape(q.shape))
        p.data.add_(0.1 * torch.randn_like(p))
        q.data.copy_(p.data.reshape(q.shape))
    images = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(deep(images[:, :, None])[:, :, 0], flat(images))


def test_deep_supervision_as_nnunet_switches_it():
    net = tiny(nn.Conv2d, FLAT, deep_supervision=True).eval()
    images = torch.randn(2, 1, 16, 16)
    finest, coarse = net(images)
    assert finest.shape == (2, 3, 16, 16) and coarse.shape == (2, 3, 8, 8)
    net.decoder.deep_supervision = False
    assert torch.equal(net(images), finest)


def test_recomputed_blocks_give_the_same_gradients():
    plain, recomputed = tiny(nn.Conv2d, FLAT), tiny(nn.Conv2d, FLAT, recompute=True)
    images = torch.randn(2, 1, 16, 16)
    for net in (plain, recomputed):
        net(images).square().mean().backward()
    for p, q in zip(plain.encoder.parameters(), recomputed.encoder.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_plans_name_the_class_by_its_path():
    kwargs = {
        "n_stages": 3, "features_per_stage": [4, 8, 8], "conv_op": "torch.nn.modules.conv.Conv2d", **FLAT,
        "n_conv_per_stage": [1, 1, 1], "n_conv_per_stage_decoder": [1, 1], "conv_bias": True,
        "nonlin": "torch.nn.LeakyReLU",
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d", "norm_op_kwargs": {}, "dropout_op": None,
        "dropout_op_kwargs": None, "nonlin_kwargs": {"inplace": True}, "ux_blocks": 1,
    }  # fmt: skip
    net = get_network_from_plans(
        "nnunet_ssl.architectures.uxnet.UXNet", kwargs, ["conv_op", "norm_op", "dropout_op", "nonlin"], 2, 4,
        deep_supervision=True,
    )  # fmt: skip
    assert type(net) is UXNet and len(net.encoder.trunk.stages[0]) == 1
    assert [x.shape[1] for x in net(torch.randn(1, 2, 16, 16))] == [4, 4]


def test_a_patch_that_the_strides_do_not_divide():
    with pytest.raises(ValueError, match=r"patch size \[16, 18\] must be divisible .* \[4, 4\]"):
        tiny(nn.Conv2d, FLAT)(torch.randn(1, 1, 16, 18))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strides": [[2, 2], [2, 2], [2, 2]]}, "first stage"),
        ({"strides": [[1, 1], [2, 2]]}, "n_stages = 3"),
        ({"kernel_sizes": [[3, 3], [2, 3], [3, 3]]}, "odd"),
    ],
)
def test_plans_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(nn.Conv2d, {**FLAT, **changes})


def test_an_unknown_key():
    with pytest.raises(TypeError, match="n_heads"):
        tiny(nn.Conv2d, FLAT, n_heads=3)
