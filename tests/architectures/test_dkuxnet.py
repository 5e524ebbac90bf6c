"""DKUXNet: published sizes and shapes, invariances of the assignment, inference, and who gets a gradient."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nnunet_ssl.architectures.dkuxnet import ClassHead, DKUXNet, DKUXNetOutput, choose_kmax_levels, classify_voxels
from nnunet_ssl.architectures.dkuxnet_memory import saved_floats, training_bytes
from nnunet_ssl.architectures.uxnet import Levels
from nnunet_ssl.losses.query_distribution import log_query_distribution
from tests import saved_memory

FLAT = {"kernel_sizes": [[3] * 2] * 3, "strides": [[1] * 2, [2] * 2, [2] * 2]}
ANISOTROPIC = {"kernel_sizes": [[1, 3, 3], [1, 3, 3], [3, 3, 3]], "strides": [[1] * 3, [1, 2, 2], [2, 2, 2]]}
ISOTROPIC = {"kernel_sizes": [[3] * 3] * 3, "strides": [[1] * 3, [2] * 3, [2] * 3]}
SMALL = {"queries": 8, "query_width": 16, "attention_heads": 2, "pixel_widths": (8, 4)}
NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
GROUPS = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
OPERATIONS = 1.12  # times those of the plans' own U-Net, one image
GIB = (17.5, 43.0)  # of a step with eight images in mixed precision, with and without recomputation


def tiny(plan: dict[str, Any] = FLAT, **options: Any) -> DKUXNet:
    torch.manual_seed(0)
    dimensions = len(plan["strides"][0])
    conv_op = {2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
    return DKUXNet(
        1, 3, [4, 8, 8], conv_op, num_classes=3, norm_op_kwargs={"affine": True}, **plan,
        **{"norm_op": NORM[dimensions], **SMALL, **options},
    )  # fmt: skip


def awake(net: DKUXNet) -> DKUXNet:
    """With scales that are neither zero nor 1e-6, as after some training."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in net.named_parameters():
        if not parameter.data.any():
            parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        elif name.endswith(".scale"):
            parameter.data.fill_(1.0)
    return net


def published(**options: Any) -> DKUXNet:
    widths = [48, 96, 192, 384, 768]
    return DKUXNet(
        1, 5, widths, nn.Conv3d, 3, [1, 2, 2, 2, 2], 2, queries=128, pixel_widths=(256, 128), class_head="flat",
        response_scale=0.1, norms="batch", **options,
    )  # fmt: skip


# ---- the published network


def test_published_sizes_and_shapes():
    torch.manual_seed(0)
    with torch.device("meta"):
        net = published()
        assert sum(p.numel() for p in net.class_head.parameters()) == 2_113_856
        assert net.kmax_levels == [3, 2] and [len(layers) for layers in net.kmax_layers] == [2, 2]
        out = net(torch.empty(2, 1, 32, 32, 32))
    distribution = log_query_distribution(out.responses, torch.arange(128).clamp(max=2))
    assert out.logits.shape == (2, 2, 32, 32, 32) and out.responses.shape == (2, 128, 32, 32, 32)
    assert distribution.shape == (2, 3, 32, 32, 32)
    assert [tuple(r.shape[1:3]) for r in out.intermediate] == [(128, 4), (128, 4), (128, 8), (128, 8)]


@pytest.mark.parametrize(
    ("stages", "wanted", "levels"),
    [
        (2, None, [1]),
        (3, None, [2, 1]),
        (4, None, [3, 2]),
        (5, None, [3, 2]),
        (6, None, [3, 2]),
        (8, None, [3, 2]),
        (5, [2, 4, 3], [4, 3, 2]),
    ],
)
def test_maps_that_update_the_centres(stages, wanted, levels):
    with torch.device("meta"):
        net = DKUXNet(1, stages, 4, nn.Conv2d, 3, [1] + [2] * (stages - 1), 2, kmax_levels=wanted, **SMALL)
        out = net(torch.empty(1, 1, 256, 256))
    assert net.kmax_levels == levels
    assert [r.shape[2] for r in out.intermediate] == [256 // 2**level for level in levels for _ in range(2)]


THIN = [[1] * 3, [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]


@pytest.mark.parametrize(
    ("strides", "wanted"),
    [
        (THIN, [4, 3]),  # geometric means 1.6, 2.5, 5.0, 10.1, 16
        ([[1, 1], [2, 1], [2, 2], [2, 2], [2, 2]], [3, 2]),  # 1.4, 2.8, 5.7, 11.3
        ([[1, 1], [4, 4], [2, 2], [2, 2]], [2, 1]),  # 4, 8, 16
        ([[1, 1], [4, 4], [4, 4]], [2, 1]),  # 4, 16
    ],
)
def test_levels_are_those_nearest_the_strides_of_8_and_4(strides, wanted):
    conv_op = {2: nn.Conv2d, 3: nn.Conv3d}[len(strides[0])]
    levels = Levels(len(strides), 4, conv_op, 3, strides)
    assert choose_kmax_levels(levels) == wanted
    means = [
        math.prod(n for s in strides[: level + 1] for n in s) ** (1 / len(strides[0])) for level in range(len(strides))
    ]
    errors = [abs(math.log2(means[level]) - math.log2(8)) for level in range(1, len(strides))]
    assert 1 + errors.index(min(errors)) in wanted


def four_stages(**options: Any) -> DKUXNet:
    torch.manual_seed(0)
    return DKUXNet(1, 4, [4, 4, 4, 8], nn.Conv2d, 3, [1, 2, 2, 2], 2, **SMALL, **options)


def test_weights_bring_their_levels():
    """Those of version 0.1.0 say nothing: they work on S - 2 and S - 3, or on the levels that the plans name."""
    images = torch.randn(1, 1, 16, 16)
    former = four_stages(kmax_levels=[2, 1]).eval()
    weights = former.state_dict()
    assert weights.pop("levels_of_kmax_layers").tolist() == [2, 1]
    for found in (weights, former.state_dict()):
        net = four_stages().eval()
        assert net.kmax_levels == [3, 2]
        net.load_state_dict(found, strict=True)
        assert net.kmax_levels == net.levels_of_kmax_layers.tolist() == [2, 1]
        assert torch.equal(net(images), former(images))
    named = four_stages(kmax_levels=[2, 1]).eval()
    named.load_state_dict(weights, strict=True)
    assert torch.equal(named(images), former(images))
    with pytest.raises(ValueError, match=r"levels \[2, 1\], but kmax_levels is \[3, 1\]"):
        four_stages(kmax_levels=[3, 1]).load_state_dict(former.state_dict())


def test_operations_and_memory_of_a_standard_plan():
    """128^3, six stages: what the pages say. Forward operations per image relative to the plans' own U-Net."""
    features, patch = [32, 64, 128, 256, 320, 320], (128, 128, 128)
    plan = plan_of(features, [[1] * 3] + [[2] * 3] * 5)
    with torch.device("meta"):
        own = PlainConvUNet(1, n_conv_per_stage=2, num_classes=2, n_conv_per_stage_decoder=2, conv_bias=True,
                            norm_op=nn.InstanceNorm3d, nonlin=nn.LeakyReLU, **plan)  # fmt: skip
        net = DKUXNet(1, **plan, num_classes=2, norm_op=nn.InstanceNorm3d)
        images, counted = torch.empty(1, 1, *patch), []
        for network in (own, net):
            with FlopCounterMode(display=False) as counter:
                network(images)
            counted.append(counter.get_total_flops())
    assert counted[1] / counted[0] == pytest.approx(OPERATIONS, abs=0.01)
    gib = [training_bytes(8, patch, half=True, **plan, recompute=recompute) / 2**30 for recompute in (True, False)]
    assert gib == pytest.approx(GIB, abs=0.3)


# ---- the assignment


def test_bounds_and_sums():
    responses, classes = 3 * torch.randn(2, 8, 4, 5), torch.randn(2, 8, 3)
    logits = classify_voxels(responses, classes)
    assignment = responses.softmax(1)
    torch.testing.assert_close(logits, torch.einsum("bnk,bnij->bkij", classes, assignment))
    torch.testing.assert_close(assignment.sum(1), torch.ones(2, 4, 5))
    low, high = (x[..., None, None] for x in (classes.amin(1), classes.amax(1)))
    assert (logits >= low - 1e-6).all() and (logits <= high + 1e-6).all()
    shifted = responses + 50 * torch.randn(2, 1, 4, 5)
    torch.testing.assert_close(classify_voxels(shifted, classes), logits, atol=1e-4, rtol=1e-4)


def permuted(net: DKUXNet, order: torch.Tensor) -> DKUXNet:
    other = copy.deepcopy(net)
    other.centres.data = net.centres.data[:, order].clone()
    return other


def test_order_of_the_queries_within_groups_means_nothing():
    net, images = awake(tiny()).train(), torch.randn(2, 1, 16, 16)
    within, across = torch.tensor([3, 0, 1, 2, 5, 4, 7, 6]), torch.tensor([7, 0, 6, 2, 5, 4, 3, 1])
    out = net(images)
    assert out.logits.std() > 0.01
    same, other = permuted(net, within)(images), permuted(net, across)(images)
    torch.testing.assert_close(same.logits, out.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(other.logits, out.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(other.responses, out.responses[:, across], atol=1e-4, rtol=1e-4)
    own = log_query_distribution(out.responses, GROUPS)
    torch.testing.assert_close(log_query_distribution(same.responses, GROUPS), own, atol=1e-4, rtol=1e-4)
    assert (log_query_distribution(other.responses, GROUPS) - own).abs().max() > 0.1
    followed = log_query_distribution(other.responses, GROUPS[across])
    torch.testing.assert_close(followed, own, atol=1e-4, rtol=1e-4)


def test_the_released_class_head_depends_on_the_order():
    net, images = awake(tiny(class_head="flat")).train(), torch.randn(2, 1, 16, 16)
    order = torch.tensor([3, 0, 1, 2, 5, 4, 7, 6])
    assert (permuted(net, order)(images).logits - net(images).logits).abs().max() > 1e-3
    torch.testing.assert_close(permuted(net, order)(images).responses, net(images).responses[:, order])
    head = ClassHead(4, 3, 2, "flat")
    centres = torch.randn(2, 4, 3)
    expected = head.layers(centres.mT.reshape(2, 12)).view(2, 3, 2)
    assert torch.equal(head(centres), expected)


# ---- plans, inference and gradients


@pytest.mark.parametrize(("plan", "patch"), [(FLAT, (16, 24)), (ANISOTROPIC, (4, 16, 16)), (ISOTROPIC, (8, 8, 16))])
@pytest.mark.parametrize("norms", ["independent", "batch"])
def test_every_weight_learns(plan, patch, norms):
    net = awake(tiny(plan, norms=norms))
    out = net(torch.randn(2, 1, *patch))
    assert isinstance(out, DKUXNetOutput)
    assert out.logits.shape == (2, 3, *patch) and out.responses.shape == (2, 8, *patch)
    loss = out.logits.square().mean() + sum(r.softmax(1).square().mean() for r in out.intermediate)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    # what a softmax or a norm behind it does not see: a shift that all queries or voxels share, the scale of the
    # only channel
    invariant = ("temperature.bias", "similarity.bias", "embed_pixels.2.0.bias", "update.0.bias", "0.conv3.conv.weight")
    for name, p in net.named_parameters():
        assert name.endswith(invariant) or p.grad.abs().max() > 1e-6, name


def test_without_a_loss_of_their_own_the_intermediate_heads_learn_nothing():
    net = awake(tiny())
    out = net(torch.randn(2, 1, 16, 16))
    heads = [p for layers in net.kmax_layers for layer in layers for p in layer.predictor.parameters()]
    loss = out.logits.square().mean() + out.responses.square().mean()
    assert all(g is None for g in torch.autograd.grad(loss, heads, allow_unused=True))


@pytest.mark.parametrize("norms", ["independent", "batch"])
def test_inference_gives_the_logits_alone(norms):
    net, images = awake(tiny(norms=norms)), torch.randn(2, 1, 16, 16)
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.momentum = 1.0
    with torch.no_grad():
        for _ in range(3):
            net(images)
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.eval()
    trained = net(images).logits
    net.eval()
    assert torch.equal(net(images), trained)
    alone = torch.cat([net(images[:1]), net(images[1:])])  # no sample sees another one
    torch.testing.assert_close(alone, trained, atol=1e-5, rtol=1e-4)


def test_two_dimensions_are_three_with_one_slice():
    thin = {"kernel_sizes": [[1, 3, 3]] * 3, "strides": [[1] * 3, [1, 2, 2], [1, 2, 2]]}
    flat, deep = awake(tiny()), tiny(thin)
    for p, q in zip(flat.parameters(), deep.parameters(), strict=True):
        q.data.copy_(p.data.reshape(q.shape))
    images = torch.randn(2, 1, 16, 16)
    first, second = flat(images), deep(images[:, :, None])
    torch.testing.assert_close(second.logits[:, :, 0], first.logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(second.responses[:, :, 0], first.responses, atol=1e-5, rtol=1e-4)


def test_half_precision_has_its_islands():
    net, images = awake(tiny()), torch.randn(2, 1, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(images)
    assert {r.dtype for r in (out.responses, *out.intermediate)} == {torch.float32}
    assert out.logits.dtype == torch.bfloat16 and out.logits.isfinite().all()
    assert net(images).logits.dtype == torch.float32
    responses, classes = 3 * torch.randn(2, 8, 4, 5), torch.randn(2, 8, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = classify_voxels(responses, classes)
    torch.testing.assert_close(inside, classify_voxels(responses, classes), atol=1e-6, rtol=1e-6)
    embedding, keys = (1e-5 * torch.randn(2, 4, 5, 3)).half(), torch.randn(2, 4, 8)
    predictor = net.predictor.eval()
    predictor.embed_pixels[2][1] = nn.Identity()  # behind it a small norm is not taken for zero
    torch.testing.assert_close(predictor.cosines(embedding, keys), predictor.cosines(embedding.float(), keys))
    directions = predictor.cosines(1e5 * embedding.float(), keys)
    torch.testing.assert_close(predictor.cosines(embedding, keys), directions, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("norms", ["independent", "batch"])
def test_buffers_stay_where_they_are(norms):
    """A buffer that is bound anew under DDP is no longer the one that is broadcast."""
    net = tiny(norms=norms)
    before = {name: buffer.data_ptr() for name, buffer in net.named_buffers()}
    net(torch.randn(2, 1, 16, 16))
    assert before and before == {name: buffer.data_ptr() for name, buffer in net.named_buffers()}


def test_for_trainers_that_know_deep_supervision_alone():
    net, images = tiny(deep_supervision=True), torch.randn(2, 1, 16, 16)
    (logits,) = net.eval()(images)
    assert torch.equal(logits, tiny().eval()(images))
    (logits,) = net.train()(images)
    assert logits.shape == (2, 3, 16, 16)
    net.decoder.deep_supervision = False
    assert isinstance(net(images), DKUXNetOutput)


@pytest.mark.parametrize("options", [{}, {"norms": "batch"}, {"norm_op": nn.BatchNorm2d}], ids=str)
def test_recomputation_gives_the_same_gradients_and_statistics_with_less_memory(options):
    nets, images = [tiny(**options), tiny(**options, recompute=True)], torch.randn(2, 1, 16, 16)
    for net in nets:
        awake(net)(images).logits.square().mean().backward()
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad)
    first, second = (saved_memory.saved_floats(net, lambda n=net: n(images)) for net in nets)
    assert second < (0.95 if options else 0.8) * first
    for (name, mine), other in zip(nets[0].named_buffers(), nets[1].buffers(), strict=True):
        assert torch.equal(mine, other), name


@pytest.mark.parametrize("options", [{"norms": "batch"}, {"norm_op": nn.BatchNorm2d}], ids=str)
def test_with_batch_norms_all_images_are_one_batch(options):
    nets, images = [tiny(**options), tiny(**options)], torch.randn(3, 1, 16, 16)
    outputs = [awake(net)(images, taught) for net, taught in zip(nets, (None, 2), strict=True)]
    for mine, other in zip(outputs[0].intermediate, outputs[1].intermediate, strict=True):
        assert torch.equal(mine, other)
    for (name, mine), other in zip(nets[0].named_buffers(), nets[1].buffers(), strict=True):
        assert torch.equal(mine, other), name


def test_plans_name_the_class_by_its_path():
    kwargs = {
        "n_stages": 3, "features_per_stage": [4, 8, 8], "conv_op": "torch.nn.modules.conv.Conv2d", **FLAT, **SMALL,
        "n_blocks_per_stage": [1, 1, 1], "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
        "norm_op_kwargs": {"affine": True},
    }  # fmt: skip
    name = "nnunet_ssl.architectures.dkuxnet.DKUXNet"
    torch.manual_seed(0)
    net = get_network_from_plans(name, kwargs, ["conv_op", "norm_op"], 1, 3, deep_supervision=False)
    reference = tiny()
    assert type(net) is DKUXNet
    for p, q in zip(net.parameters(), reference.parameters(), strict=True):
        assert torch.equal(p, q)  # nnU-Net's own initialisation leaves it alone


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norms": "layer"}, "norms"),
        ({"class_head": "deep"}, "class_head"),
        ({"query_width": 18, "attention_heads": 4}, "query_width 18"),
        ({"mask_stride": 3}, "mask_stride"),
        ({"kmax_levels": [0, 1]}, "kmax_levels"),
        ({"kmax_levels": [3]}, "kmax_levels"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)
    with pytest.raises(TypeError, match="quieres"):
        tiny(quieres=3)


# ---- memory


def plan_of(features: list[int], strides: list[list[int]], kernels: list[list[int]] | None = None) -> dict[str, Any]:
    dimensions = len(strides[0])
    return {
        "n_stages": len(features),
        "features_per_stage": features,
        "conv_op": {2: nn.Conv2d, 3: nn.Conv3d}[dimensions],
        "kernel_sizes": kernels or [[3] * dimensions] * len(features),
        "strides": strides,
    }


MEMORY = [
    ([24] * 3, plan_of([16, 32, 64], [[1] * 3, [2] * 3, [2] * 3]), {}),
    ([24] * 3, plan_of([16, 32, 64], [[1] * 3, [2] * 3, [2] * 3]), {"recompute": True}),
    ([24] * 3, plan_of([16, 32, 64], [[1] * 3, [2] * 3, [2] * 3]), {"mask_stride": 2, "recompute": True}),
    ([64] * 2, plan_of([8, 16, 32, 32, 32], [[1] * 2] + [[2] * 2] * 4), {"queries": 16, "kmax_levels": [4, 3]}),
    (
        [8, 32, 32],
        plan_of([16, 32, 64], [[1] * 3, [1, 2, 2], [2, 2, 2]], [[1, 3, 3], [1, 3, 3], [3, 3, 3]]),
        {"queries": 16, "layers_per_level": 1},
    ),
]


@pytest.mark.parametrize(("patch", "plan", "options"), MEMORY, ids=["3d", "recomputed", "levers", "2d", "anisotropic"])
def test_memory_is_estimated_from_the_plans(patch, plan, options):
    torch.manual_seed(0)
    widths = {"query_width": 64, "pixel_widths": (32, 16), **options}
    net = DKUXNet(1, **plan, num_classes=2, norm_op=NORM[len(patch)], norm_op_kwargs={"affine": True}, **widths)
    images = torch.randn(4, 1, *patch)  # two views of two patches in one forward
    measured = saved_memory.saved_floats(net, lambda: net(images).responses.logsumexp(1))  # as the losses keep them
    estimated = training_bytes(4, patch, **plan, **widths) / 4
    assert estimated == pytest.approx(measured, rel=0.05)
    measured = saved_memory.saved_floats(net, lambda: net(images, 2).responses.logsumexp(1))
    assert training_bytes(4, patch, untaught=2, **plan, **widths) / 4 == pytest.approx(measured, rel=0.05)


def test_memory_in_mixed_precision():
    """Of two more images, so that half-precision copies of the weights are not counted."""
    torch.manual_seed(0)
    patch, plan = [24] * 3, plan_of([16, 32, 64], [[1] * 3, [2] * 3, [2] * 3])
    widths = {"query_width": 64, "pixel_widths": (32, 16), "queries": 16}
    net = DKUXNet(1, **plan, num_classes=2, norm_op=nn.InstanceNorm3d, norm_op_kwargs={"affine": True}, **widths)

    def half(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return net(images).responses.logsumexp(1)

    one, three = (saved_memory.saved_floats(net, lambda n=n: half(torch.randn(n, 1, *patch))) for n in (1, 3))
    assert training_bytes(2, patch, half=True, **plan, **widths) == pytest.approx(4 * (three - one), rel=0.15)


@pytest.mark.parametrize(("patch", "plan", "options"), MEMORY[:1])
def test_a_step_needs_no_more_than_the_formula_of_the_specification(patch, plan, options):
    torch.manual_seed(0)
    f, c, (first, second), n = 16, 64, (32, 16), 32
    net = DKUXNet(1, **plan, num_classes=2, norm_op=nn.InstanceNorm3d, norm_op_kwargs={"affine": True}, queries=n,
                  query_width=c, pixel_widths=(first, second), **options)  # fmt: skip
    images = torch.randn(4, 1, *patch)
    measured = saved_memory.saved_floats(net, lambda: net(images).responses.logsumexp(1))
    voxels = 24**3
    formula = 23.6 * f * voxels + voxels * (4 * f + 3 * first + 3 * second + 4 * n)
    formula += 2 * voxels / 8 * (2 * 2 * f + 11.5 * c + 4 * n)
    assert 0.5 * formula < measured / 4 < formula


def test_published_network_needs_no_more_than_the_formula():
    """The figures of the specification, per image and voxel of a 3D patch whose widths double."""
    patch, voxels = [112, 112, 80], 112 * 112 * 80
    for f, queries, widths in ((48, 128, (256, 128)), (32, 32, (256, 128)), (32, 32, (64, 32))):
        plan = plan_of([f, 2 * f, 4 * f, 8 * f, 16 * f], [[1] * 3] + [[2] * 3] * 4)
        found = saved_floats(patch, **plan, queries=queries, pixel_widths=widths)
        assert 0.75 * 23.6 * f * voxels < found["unet"] < 23.6 * f * voxels
        predictor = voxels * (4 * f + 3 * sum(widths) + 4 * queries)
        assert 0.8 * predictor < found["predictor"] < predictor
        layers = 0.0
        for level in (3, 3, 2, 2):
            layers += voxels / 8**level * (2 * 2**level * f + 2944 + 4 * queries)
        assert 0.9 * layers < found["kmax"] < layers
    assert 4 * voxels * (4 * 48 + 3 * 384 + 4 * 128) == pytest.approx(7.5e9, rel=0.01)


def test_torch_compile_sees_one_graph():
    net, images = awake(tiny()), torch.randn(2, 1, 16, 16)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    found = compiled(images)
    torch.testing.assert_close(found.logits, net(images).logits)
    assert len(found.intermediate) == 4
