"""CMAformer: parameters of the publication, shapes, attention within the image, layouts, kinds of plans."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnunet_ssl.architectures.boundary_heads import SignedDistanceHead, SliceProjection
from nnunet_ssl.architectures.channel_norm import ChannelNorm
from nnunet_ssl.architectures.cmaformer import CMAformer, NoGate, has_whole_decoder, map_sizes, released_layout
from nnunet_ssl.architectures.cmaformer_blocks import (
    AtrousPyramid,
    ChannelAttention,
    Ops,
    PatchEmbedding,
    ResidualConv,
    ScalarGate,
    fitted_dilations,
)
from nnunet_ssl.architectures.feature_tap import FeatureTap
from nnunet_ssl.architectures.token_attention import (
    CrossAttentionGate,
    DecoderLayer,
    EncoderLayer,
    RelativePositionBias,
)

BATCH_NORM = Ops(2, nn.BatchNorm2d)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small(dimensions: int = 3, patch: Any = None, features: Any = (4, 8, 8), classes: int = 3, **options: Any):
    torch.manual_seed(0)
    patch = patch or [16] * dimensions
    strides = [[1] * dimensions, *[[2] * dimensions] * (len(features) - 1)]
    return CMAformer(1, classes, patch, features, strides, [[3] * dimensions] * len(features), **options)


# ---- the publication


def test_parameters_of_the_released_layout():
    with torch.device("meta"):
        assert count(released_layout(1, 3)) == 47_679_718
        assert count(released_layout(1, 9)) == 47_679_820


def test_parameters_of_each_block():
    ops = BATCH_NORM
    with torch.device("meta"):
        assert count(PatchEmbedding(ops, 16, 32, 3, 2)) == 5_024
        assert count(ChannelAttention(32)) == 128
        assert count(ResidualConv(ops, 32, 64, 3, 2)) == 74_240
        assert count(EncoderLayer(512, 8, None)) == count(DecoderLayer(512, 8, None)) == 3_152_384
        assert count(AtrousPyramid(ops, 512, 512, 3, [6, 12, 18])) == 7_869_440
        assert count(ScalarGate(ops, 512, 512, 3)) == 4_723_201


def test_shapes_of_the_released_layout():
    with torch.device("meta"):
        net, images = released_layout(1, 3), torch.empty(1, 1, 512, 512)
        seen: dict[str, tuple[int, ...]] = {}
        parts = {f"level {i}": stage for i, stage in enumerate(net.stages)}
        parts |= {"bottleneck": net.bottleneck, "output": net.decoder.output}
        parts |= {f"step {level}": s for level, s in zip(net.decoder.levels, net.decoder.steps, strict=True)}
        for name, part in parts.items():
            part.register_forward_hook(lambda _, __, out, name=name: seen.update({name: tuple(out.shape[1:])}))
        assert net(images).shape == (1, 3, 512, 512)
    assert seen == {
        "level 0": (16, 512, 512),
        "level 1": (32, 256, 256),
        "level 2": (64, 128, 128),
        "level 3": (128, 64, 64),
        "level 4": (256, 32, 32),
        "level 5": (512, 16, 16),
        "bottleneck": (512, 16, 16),
        "step 4": (256, 32, 32),
        "step 2": (128, 128, 128),
        "step 0": (32, 512, 512),
        "output": (16, 512, 512),
    }


# ---- blocks


def test_layer_norm_acts_on_the_channels_of_each_position():
    norm, x = ChannelNorm(7), torch.randn(2, 7, 3, 4) * 5 + 2
    out = norm(x)
    torch.testing.assert_close(out.mean(1), torch.zeros(2, 3, 4), atol=1e-6, rtol=0)
    torch.testing.assert_close(out.var(1, correction=0), torch.ones(2, 3, 4), atol=1e-5, rtol=0)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    expected = F.layer_norm(x.movedim(1, -1), (7,), norm.weight, norm.bias, 1e-6).movedim(-1, 1)
    torch.testing.assert_close(norm(x), expected)


def test_channel_attention_without_excitation_halves():
    attention, x = ChannelAttention(32), torch.randn(2, 32, 4, 4)
    nn.init.zeros_(attention.excite.weight)
    torch.testing.assert_close(attention(x), x / 2)


@pytest.mark.parametrize("bounded", [False, True])
def test_scalar_gate(bounded):
    torch.manual_seed(0)
    gate = ScalarGate(Ops(3, nn.InstanceNorm3d, {"affine": True}), 4, 6, 3, bounded)
    nn.init.normal_(gate.to_scalar[2].weight, std=20)
    encoded, decoded = torch.randn(2, 4, 4, 4, 4), torch.randn(2, 6, 4, 4, 4)
    assert not gate(encoded, torch.zeros_like(decoded)).any()
    psi = gate.psi(encoded, decoded)
    assert psi.shape == (2, 1, 4, 4, 4)
    torch.testing.assert_close(gate(encoded, decoded), psi * decoded)
    if bounded:
        assert psi.min() >= 0 and psi.max() <= 1
    else:
        assert psi.min() < -1 and psi.max() > 1
    assert not torch.equal(gate.psi(encoded + torch.randn_like(encoded), decoded), psi)


def test_dilations_fit_the_map():
    assert fitted_dilations([16]) == [(3,), (7,), (11,)]
    assert fitted_dilations([4]) == [(1,), (1,), (2,)]
    assert fitted_dilations([512]) == [(6,), (12,), (18,)]
    assert fitted_dilations([1, 5, 7]) == [(1, 1, 1), (1, 2, 3), (1, 3, 4)]


def test_a_dilation_beyond_the_map_leaves_the_centre_tap():
    conv = BATCH_NORM.conv(3, 5, 3, dilation=18)
    x = torch.randn(2, 3, 16, 16)
    centre = F.conv2d(x, conv.weight[:, :, 1:2, 1:2], conv.bias)
    torch.testing.assert_close(conv(x), centre)
    assert not torch.allclose(BATCH_NORM.conv(3, 5, 3, dilation=11)(x), centre, atol=1e-2)


@pytest.mark.parametrize("layer_class", [EncoderLayer, DecoderLayer])
def test_position_bias_and_permutations(layer_class):
    torch.manual_seed(0)
    layer, tokens, order = layer_class(16, 8, (2, 3)).eval(), torch.randn(2, 6, 16), torch.tensor([4, 0, 5, 2, 1, 3])

    def run(x: torch.Tensor) -> torch.Tensor:
        return layer(x) if layer_class is EncoderLayer else layer(x, x)

    torch.testing.assert_close(run(tokens[:, order]), run(tokens)[:, order])
    nn.init.normal_(layer.attention.bias.table)
    assert not torch.allclose(run(tokens[:, order]), run(tokens)[:, order], atol=1e-3)


def test_position_bias_is_of_the_difference_of_coordinates():
    bias = RelativePositionBias(2, (2, 3))
    nn.init.normal_(bias.table)
    values = bias()[0].unflatten(1, (2, 3)).unflatten(3, (2, 3))  # head, query y x, key y x
    assert bias.table.shape == (2, 3 * 5)
    torch.testing.assert_close(values[:, 0, 1, 1, 2], values[:, 0, 0, 1, 1])
    torch.testing.assert_close(values[:, 1, 2, 1, 0], values[:, 0, 2, 0, 0])
    assert len({round(v, 5) for v in values[0].flatten().tolist()}) == 15


def test_attention_equals_the_formula():
    torch.manual_seed(0)
    layer = EncoderLayer(8, 2, (4,))
    nn.init.normal_(layer.attention.bias.table)
    x = torch.randn(1, 4, 8)
    q = layer.query_norm(x)
    a = layer.attention
    queries, keys, values = (f(y).view(4, 2, 4) for f, y in ((a.query, q), (a.key, x), (a.value, x)))
    heads = []
    for h in range(2):
        p = torch.tensor([[a.bias.table.data[h, i - j + 3] for j in range(4)] for i in range(4)])
        heads.append((queries[:, h] @ keys[:, h].T / math.sqrt(4) + p).softmax(1) @ values[:, h])
    r = layer.norm(a.out(torch.cat(heads, 1))[None] + q)  # the normed query is what is added
    torch.testing.assert_close(layer(x), layer.feed_forward(r) + r)


def test_cross_attention_gate_is_a_residual_of_the_encoder_map():
    torch.manual_seed(0)
    gate = CrossAttentionGate(6, 8, 8)
    encoded, decoded = torch.randn(1, 6, 3, 4), torch.randn(1, 8, 3, 4)
    flat = encoded.clone()
    flat[:] = encoded.mean((2, 3), keepdim=True)
    difference = gate(flat, decoded) - decoded  # equal keys: each position receives the same mean value
    torch.testing.assert_close(difference, difference[..., :1, :1].expand_as(difference))
    nn.init.zeros_(gate.attention.out.weight), nn.init.zeros_(gate.attention.out.bias)
    assert torch.equal(gate(encoded, decoded), decoded)


# ---- attention stays within the image


@pytest.mark.parametrize("dimensions, gate", [(2, "scalar"), (3, "scalar"), (3, "qkv")])
def test_the_output_of_an_image_does_not_depend_on_its_neighbours(dimensions, gate):
    net = small(dimensions, gate=gate).eval()
    images = torch.randn(3, 1, *[16] * dimensions)
    other = images.clone()
    other[1:] = torch.randn_like(images[1:])
    with torch.no_grad():
        together, changed, alone = net(images), net(other), net(images[:1])
    torch.testing.assert_close(together[0], changed[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(together[0], alone[0], atol=1e-5, rtol=0)
    assert not torch.allclose(together[1], changed[1], atol=1e-3)


def test_one_token_reaches_every_token_of_its_image_and_no_other():
    bottleneck = small(2).bottleneck.eval()
    bottleneck.bridge = nn.Identity()  # whose norm has a reach of its own
    x = torch.randn(2, 8, 4, 4)
    changed = x.clone()
    changed[0, :, 1, 2] += 1
    with torch.no_grad():
        difference = (bottleneck(changed) - bottleneck(x)).abs().amax(1)
    assert (difference[0] > 1e-6).all() and not difference[1].any()


# ---- levels from plans


@pytest.mark.parametrize(
    "patch, strides, sizes, levels",
    [
        ((128, 128, 128), [[1] * 3] + [[2] * 3] * 5, [4, 4, 4], [4, 2, 0]),
        ((40, 224, 224), [[1] * 3, [1, 2, 2], *[[2] * 3] * 3, [1, 2, 2]], [5, 7, 7], [4, 2, 0]),
        ((512, 512), [[1, 1]] + [[2, 2]] * 7, [4, 4], [6, 4, 2, 0]),
        ((64, 96, 96), [[1] * 3] + [[2] * 3] * 4, [4, 6, 6], [2, 0]),
    ],
)
def test_levels(patch, strides, sizes, levels):
    features = [32, 64, 128, 256, 320, 320, 320, 320][: len(strides)]
    kernels = [[3 if any(s[a] > 1 for s in strides[: i + 1]) else 1 for a in range(len(patch))] or [3]
               for i in range(len(strides))]  # fmt: skip
    with torch.device("meta"):
        net = CMAformer(2, 4, patch, features, strides, kernels)
        assert net(torch.empty(2, 2, *patch)).shape == (2, 4, *patch)
        whole = CMAformer(2, 4, patch, features, strides, kernels, lite=False)
    assert map_sizes(patch, strides)[-1] == sizes and net.decoder.levels == levels
    for lite, decoder in ((True, net.decoder), (False, whole.decoder)):
        assert isinstance(decoder.output, AtrousPyramid) != lite
        widths = [step.join.main[2].out_channels for step in decoder.steps]
        assert widths == [features[level + (not lite and i > 0)] for i, level in enumerate(levels)]
    last = [type(m).__name__ for m in net.stages[-1]]
    odd = len(strides) % 2 == 0
    assert last == (["PatchEmbedding", "ChannelAttention", "ResidualConv"] if odd
                    else ["ResidualConv", "ChannelAttention"])  # fmt: skip
    assert net.bottleneck.encoder[0].attention.heads == 8


OPTIONS = [
    {},
    {"lite": False},
    {"gate": "sigmoid"},
    {"gate": "qkv"},
    {"position_bias": False, "transformer_layers": 1, "heads": 2},
    {"gate": "none", "transformer_layers": 0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dimensions, features", [(2, (4, 8, 8)), (3, (4, 8, 8, 12))])
def test_every_option_runs_and_every_weight_learns(options, dimensions, features):
    net = small(dimensions, features=features, **options)
    out = net(torch.randn(2, 1, *[16] * dimensions))
    assert out.shape == (2, 3, *[16] * dimensions)
    torch.square(out).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    kinds = [type(step.gate).__name__ for step in net.decoder.steps]
    expected = {"qkv": "CrossAttentionGate", "none": "NoGate"}
    assert kinds[0] == expected.get(options.get("gate"), "ScalarGate")
    assert len(net.bottleneck.encoder) == options.get("transformer_layers", 3)
    if dimensions == 3 and options.get("gate") == "qkv":  # 2^3 and 4^3 positions, 8^3 would be the next level
        assert kinds == ["CrossAttentionGate"] * 2


def test_wide_levels_have_no_cross_attention():
    with torch.device("meta"):
        net = small(2, [64, 64], (4, 8, 8, 8, 8), gate="qkv")
        assert [type(s.gate).__name__ for s in net.decoder.steps] == ["CrossAttentionGate"] * 2
        net = small(2, [256, 256], (4, 8, 8, 8, 8), gate="qkv")
        assert [type(s.gate).__name__ for s in net.decoder.steps] == ["CrossAttentionGate", "ScalarGate"]


def test_anisotropic_levels_and_sizes_that_strides_do_not_divide():
    strides, kernels = [[1, 1, 1], [1, 2, 2], [2, 2, 2]], [[1, 3, 3], [1, 3, 3], [3, 3, 3]]
    net = CMAformer(1, 2, (5, 18, 20), (4, 8, 8), strides, kernels)
    assert net(torch.randn(1, 1, 5, 18, 20)).shape == (1, 2, 5, 18, 20)
    assert net.stages[0].main[0].kernel_size == (1, 3, 3) and net.stages[1][0].embed.stride == (1, 2, 2)
    assert net.bottleneck.encoder[0].attention.bias.table.shape[1] == 5 * 9 * 9


def test_from_plans_takes_the_norm_and_the_levels():
    kwargs = {
        "n_stages": 3,
        "features_per_stage": [4, 8, 8],
        "strides": [1, 2, 2],
        "kernel_sizes": [[3, 3]] * 3,
        "norm_op": "torch.nn.modules.batchnorm.BatchNorm2d",
        "norm_op_kwargs": {"eps": 0.25},
        "n_blocks_per_stage": [1, 1, 1],
    }
    net = CMAformer.from_plans(kwargs, [16, 16], 2, 3, heads=4)
    assert isinstance(net.stages[2][0].main[0], nn.BatchNorm2d) and net.stages[2][0].main[0].eps == 0.25
    assert net.eval()(torch.zeros(1, 2, 16, 16)).shape == (1, 3, 16, 16)
    default = CMAformer.from_plans({**kwargs, "norm_op": None}, [16, 16], 2, 3)
    assert isinstance(default.stages[2][0].main[0], nn.InstanceNorm2d) and default.stages[2][0].main[0].affine


@pytest.mark.parametrize("dimensions", [2, 3])
def test_weights_of_a_whole_decoder_make_it_whole_unless_the_layout_was_chosen(dimensions):
    whole, x = small(dimensions, lite=False).eval(), torch.randn(1, 1, *[16] * dimensions)
    undecided = small(dimensions).eval()
    assert not has_whole_decoder(undecided.state_dict()) and has_whole_decoder(whole.state_dict())
    nn.ModuleDict({"inner": undecided}).load_state_dict({f"inner.{k}": v for k, v in whole.state_dict().items()})
    with torch.no_grad():
        assert torch.equal(undecided(x), whole(x)) and not undecided.decoder.training
    with pytest.raises(RuntimeError, match="decoder"):
        small(dimensions, lite=True).load_state_dict(whole.state_dict())
    again = small(dimensions)
    again.load_state_dict(small(dimensions, lite=True).state_dict())
    assert not has_whole_decoder(again.state_dict())


def test_without_gate_what_comes_from_below_stays_as_it_is():
    decoded = torch.randn(1, 2, 4, 4)
    assert NoGate()(torch.randn(1, 3, 4, 4), decoded) is decoded


def test_errors():
    with pytest.raises(ValueError, match="gate must be one of scalar, sigmoid, qkv, none"):
        small(gate="softmax")
    with pytest.raises(ValueError, match="2 or more levels"):
        CMAformer(1, 2, [16, 16], [4], [[1, 1]], [[3, 3]])
    with pytest.raises(NotImplementedError, match="stride at level 0"):
        CMAformer(1, 2, [16, 16], [4, 4], [[2, 2], [2, 2]], [[3, 3]] * 2)


# ---- what training adds


def test_signed_distance_head_and_projection():
    torch.manual_seed(0)
    head, projection = SignedDistanceHead(3, 4, 2), SliceProjection(2)
    features = torch.randn(2, 4, 4, 20, 8) * 10
    distance = head(features.half().float())
    assert distance.shape == (2, 2, 4, 20, 8) and distance.abs().max() <= 1
    torch.testing.assert_close(distance, torch.tanh(head.conv(features.half().float())))
    vectors = projection(distance[:, :, 0])
    assert vectors.shape == (2, 128)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    assert count(projection) == 2 * 256 * 256 + 256 + 256 * 128 + 128
    small_square = F.adaptive_avg_pool2d(distance[:, :, 0], 16).flatten(1)
    torch.testing.assert_close(vectors, F.normalize(projection.out(projection.hidden(small_square).relu()), dim=1))


def test_tap_hands_out_the_input_of_the_last_layer_with_its_gradient():
    net = small(2)
    tap = FeatureTap(net)
    net(torch.randn(1, 1, 16, 16))
    with pytest.raises(RuntimeError, match="no forward"):
        tap.take()  # nobody listened
    with tap.open():
        out = net(torch.randn(1, 1, 16, 16))
    features = tap.take()
    assert features.shape == (1, tap.channels, 16, 16)
    assert torch.equal(net.decoder.seg_layers[-1](features), out)
    features.sum().backward()
    assert net.stages[0].skip.weight.grad.abs().sum() > 0
    with pytest.raises(RuntimeError, match="no forward"):
        tap.take()
    with pytest.raises(NotImplementedError, match="Linear has no decoder"):
        FeatureTap(nn.Linear(1, 1))
