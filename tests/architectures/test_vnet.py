"""V-Net and its residual counterpart: published sizes, the same outputs as plain layers, plans of every kind."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_ssl.architectures.dual_networks import DualNet
from nnunet_ssl.architectures.resvnet import ResVNet
from nnunet_ssl.architectures.unet_decoder import feature_maps, interpolating_decoder
from nnunet_ssl.architectures.vnet import VNet

NAME = f"{VNet.__module__}.VNet"
WIDTHS, DOWN, UP = [16, 32, 64, 128, 256], [1, 2, 3, 3, 3], [3, 3, 2, 1]
ISOTROPIC = {"kernel_sizes": [[3] * 3] * 3, "strides": [[1] * 3, [2] * 3, [2] * 3]}
ANISOTROPIC = {"kernel_sizes": [[1, 3, 3], [1, 3, 3], [3, 3, 3]], "strides": [[1] * 3, [1, 2, 2], [2, 2, 2]]}
FLAT = {"kernel_sizes": [[3] * 2] * 3, "strides": [[1] * 2, [2] * 2, [4] * 2]}
PLANS = [(3, (8, 16, 8), ISOTROPIC), (3, (4, 16, 16), ANISOTROPIC), (2, (16, 24), FLAT)]


def size(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def published(widths: list[int], classes: int, kind: type = VNet, first: Any = DOWN, **more: Any) -> VNet:
    layers = {"norm_op": nn.BatchNorm3d, "nonlin": nn.ReLU, "nonlin_kwargs": {"inplace": True}, "conv_bias": True}
    with torch.device("meta"):
        return kind(1, 5, widths, nn.Conv3d, 3, [1, 2, 2, 2, 2], first, classes, UP, **layers, **more)


def tiny(dims: int, plan: dict[str, Any], deep: bool = False, **more: Any) -> Any:
    """As nnU-Net builds it from plans, with batch norms that have seen something."""
    torch.manual_seed(0)
    kwargs = {
        "n_stages": 3, "features_per_stage": [3, 4, 5], "conv_op": f"torch.nn.Conv{dims}d",
        "n_conv_per_stage": [1, 2, 2], "n_conv_per_stage_decoder": [2, 1], "conv_bias": True,
        "norm_op": f"torch.nn.BatchNorm{dims}d", "dropout_op": None, "nonlin": "torch.nn.ReLU", **plan, **more,
    }  # fmt: skip
    classes = ["conv_op", "norm_op", "dropout_op", "nonlin"]
    network = get_network_from_plans(NAME, kwargs, classes, 2, 3, deep_supervision=deep)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight)
    return network


# ---- sizes


def test_parameters_of_the_released_networks():
    assert size(published(WIDTHS, 2)) == 9_448_866
    wide = published([32, 64, 128, 256, 512], 14)
    heads = 2 * (32 * 14 + 14)
    assert size(wide.encoder) == 29_495_296
    assert size(wide.decoder.transpconvs, wide.decoder.stages) + heads == 8_283_292
    assert size(published(WIDTHS, 2, ResVNet, [0, 3, 4, 6, 3])) == 17_930_354


def test_dual_networks_have_both_of_the_release():
    architecture = {
        "n_stages": 5, "features_per_stage": WIDTHS, "conv_op": "torch.nn.Conv3d", "kernel_sizes": 3,
        "strides": [1, 2, 2, 2, 2], "n_conv_per_stage": DOWN, "n_conv_per_stage_decoder": UP,
        "norm_op": "torch.nn.BatchNorm3d",
    }  # fmt: skip
    kinds = [(NAME, architecture)]
    residual = {**architecture, "n_blocks_per_stage": [0, 3, 4, 6, 3]}
    del residual["n_conv_per_stage"]
    kinds.append((f"{ResVNet.__module__}.ResVNet", residual))
    for name, kwargs in kinds:
        dual = DualNet.from_plans(name, kwargs, ["conv_op", "norm_op"], 1, 2, False)
        assert (size(dual.student), size(dual.teacher)) == (17_930_354, 9_448_866)


def test_feature_map_size_is_what_the_layers_make():
    network, images = tiny(3, ANISOTROPIC, deep=True), torch.zeros(1, 2, 4, 16, 16)
    made = []
    for module in network.modules():
        if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
            module.register_forward_hook(lambda _, __, out: made.append(out[0].numel()))
    network(images)
    assert network.compute_conv_feature_map_size((4, 16, 16)) == sum(made)
    made.clear()
    alone = tiny(3, ANISOTROPIC)
    assert alone.compute_conv_feature_map_size((4, 16, 16)) == network.compute_conv_feature_map_size(
        (4, 16, 16)
    ) - 3 * (4 * 8 * 8)


# ---- the function


def reference(network: Any, images: Tensor, steps: list[list[int]]) -> list[Tensor]:
    """The V-Net of the literature in evaluation mode, from the weights in their order; the finest first."""
    dims = images.ndim - 2
    convolve, transpose = (F.conv2d, F.conv_transpose2d) if dims == 2 else (F.conv3d, F.conv_transpose3d)
    kinds = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    norms = (nn.BatchNorm2d, nn.BatchNorm3d)
    encoder, decoder = (
        iter(list(dict.fromkeys(m for m in part.modules() if isinstance(m, (*kinds, *norms)))))
        for part in (network.encoder, nn.ModuleList(
            [m for pair in zip(network.decoder.transpconvs, network.decoder.stages, strict=True) for m in pair]))
    )  # fmt: skip

    def layer(parts: Any, x: Tensor, step: list[int] | None = None, up: bool = False) -> Tensor:
        weight, norm = next(parts), next(parts)
        if up:
            x = transpose(x, weight.weight, weight.bias, step)
        elif step:
            x = convolve(x, weight.weight, weight.bias, step)
        else:
            x = convolve(x, weight.weight, weight.bias, 1, [k // 2 for k in weight.weight.shape[2:]])
        shape = (1, -1, *[1] * dims)
        x = (x - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + norm.eps).sqrt()
        return (x * norm.weight.view(shape) + norm.bias.view(shape)).clamp(min=0)

    maps, x = [], images
    for count, step in zip([1, 2, 2], [None, *steps[1:]], strict=True):
        x = layer(encoder, x, step) if step else x
        for _ in range(count):
            x = layer(encoder, x)
        maps.append(x)
    outputs = []
    for count, step, skip, head in zip([2, 1], steps[:0:-1], maps[-2::-1], network.decoder.seg_layers, strict=True):
        x = layer(decoder, x, step, up=True) + skip
        for _ in range(count):
            x = layer(decoder, x)
        if not isinstance(head, nn.Identity):
            outputs.append(convolve(x, head.weight, head.bias))
    assert next(encoder, None) is None and next(decoder, None) is None
    return outputs[::-1]


@pytest.mark.parametrize(("dims", "patch", "plan"), PLANS)
def test_outputs_equal_plain_layers(dims, patch, plan):
    images = torch.randn(2, 2, *patch)
    network = tiny(dims, plan, deep=True).eval()
    expected = reference(network, images, plan["strides"])
    for output, wanted in zip(network(images), expected, strict=True):
        torch.testing.assert_close(output, wanted)
    alone = tiny(dims, plan).eval()
    assert size(network) - size(alone) == 4 * 3 + 3
    alone.load_state_dict(network.state_dict())  # trained with deep supervision, predicts without
    torch.testing.assert_close(alone(images), expected[0])
    maps = feature_maps(alone.decoder, alone.encoder(images))
    torch.testing.assert_close(alone.decoder.seg_layers[-1](maps[-1]), expected[0])


def test_weights_of_something_else_are_still_refused():
    network = tiny(2, FLAT)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        network.load_state_dict({**network.state_dict(), "decoder.other.weight": torch.zeros(1)})


@pytest.mark.parametrize(("dims", "patch", "plan"), PLANS)
def test_every_weight_learns(dims, patch, plan):
    for network in (tiny(dims, plan, True, nonlin="torch.nn.LeakyReLU"), residual_of(dims, plan)):
        outputs = network(torch.randn(2, 2, *patch))
        sum(x.square().mean() for x in outputs).backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
        assert outputs[0].shape == (2, 3, *patch)


def residual_of(dims: int, plan: dict[str, Any]) -> ResVNet:
    kinds = {"conv_op": (nn.Conv2d, nn.Conv3d), "norm_op": (nn.BatchNorm2d, nn.BatchNorm3d)}
    chosen = {key: pair[dims - 2] for key, pair in kinds.items()}
    torch.manual_seed(0)
    return ResVNet(2, 3, [3, 4, 5], n_blocks_per_stage=[0, 1, 2], num_classes=3, n_conv_per_stage_decoder=[2, 1],
                   nonlin=nn.LeakyReLU, deep_supervision=True, **plan, **chosen)  # fmt: skip


def test_a_residual_block_is_two_convolutions_and_a_shortcut():
    block = residual_of(2, FLAT).encoder.stages[1][0].eval()
    x = torch.randn(1, 3, 6, 6)
    inner = F.leaky_relu(block.first_norm(F.conv2d(x, block.first.weight, stride=2, padding=1)))
    inner = block.second_norm(F.conv2d(inner, block.second.weight, padding=1))
    shortcut = block.shortcut[1](F.conv2d(x, block.shortcut[0].weight, stride=2))
    torch.testing.assert_close(block(x), F.leaky_relu(inner + shortcut))


def test_dropout_is_at_the_bottleneck_and_before_the_head_alone():
    network = tiny(2, FLAT, dropout_op="torch.nn.Dropout2d", dropout_op_kwargs={"p": 0.5})
    places = [name for name, module in network.named_modules() if isinstance(module, nn.Dropout2d)]
    assert places == ["encoder.stages.2.2", "decoder.stages.1.1"]
    dropped = (network.train().encoder.stages[2][2](torch.ones(4, 5, 2, 2)) == 0).flatten(2)
    assert torch.equal(dropped.any(2), dropped.all(2)) and 0 < dropped.sum() < dropped.numel()  # whole channels


def test_initial_weights():
    torch.manual_seed(0)
    wide = {"features_per_stage": [8, 64, 64]}
    he, xavier = tiny(2, FLAT, **wide), tiny(2, FLAT, **wide, weight_init="xavier")
    for network, expected in ((he, (2 / (64 * 9)) ** 0.5), (xavier, (2 / (128 * 9)) ** 0.5)):
        weight = network.encoder.stages[1][1].convs[1].conv.weight
        assert weight.std().item() == pytest.approx(expected, rel=0.02)


def test_other_decoders_keep_norm_and_activation():
    decoder = interpolating_decoder(tiny(3, ISOTROPIC), "linear", "it")
    for upsample, (below, width) in zip(decoder.transpconvs, pairwise([5, 4, 3]), strict=True):
        convolution, resize, norm, nonlin = upsample
        assert (convolution.in_channels, convolution.out_channels) == (below, width)
        assert isinstance(resize, nn.Upsample) and isinstance(norm, nn.BatchNorm3d) and isinstance(nonlin, nn.ReLU)
    network = tiny(3, ISOTROPIC)
    assert decoder(network.encoder(torch.randn(2, 2, 8, 8, 8))).shape == (2, 3, 8, 8, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strides": [[2, 2], [2, 2], [2, 2]]}, "the first stage of a V-Net has no stride"),
        ({"n_conv_per_stage": [1, 2]}, "n_conv_per_stage has 2 entries for 3 stages"),
        ({"n_conv_per_stage_decoder": [1]}, "n_conv_per_stage_decoder has 1 entries for 2 stages"),
        ({"weight_init": "zero"}, "weight_init must be one of he, xavier, got 'zero'"),
    ],
)
def test_plans_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        tiny(2, {**FLAT, **change})
