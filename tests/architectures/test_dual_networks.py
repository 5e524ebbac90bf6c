from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from nnunet_ssl.architectures.dual_networks import DualNet, counterparts, logits_and_features, mean_logits
from tests.live_memory import LiveMemory
from tests.tiny import Tiny, plans_of

UNETS = [(kind, dims) for kind in ("plain", "residual") for dims in (2, 3)]
CLASSES = 3


def arguments(kind: str = "plain", dims: int = 3) -> dict:
    architecture = plans_of(Tiny(residual=kind == "residual"))["configurations"]["3d_fullres" if dims == 3 else "2d"][
        "architecture"
    ]
    return {
        "arch_class_name": architecture["network_class_name"],
        "arch_kwargs": architecture["arch_kwargs"],
        "arch_kwargs_req_import": architecture["_kw_requires_import"],
        "input_channels": 1,
        "output_channels": CLASSES,
    }


def build(kind: str = "plain", dims: int = 3, seed: int = 0, deep_supervision=True, **options) -> DualNet:
    torch.manual_seed(seed)
    return DualNet.from_plans(**arguments(kind, dims), deep_supervision=deep_supervision, **options)


def images(batch: int, dims: int = 3, seed: int = 0, size: int = 16) -> Tensor:
    return torch.randn(batch, 1, *(size,) * dims, generator=torch.Generator().manual_seed(seed))


def logits(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- the two networks


@pytest.mark.parametrize(("kind", "dims"), UNETS)
def test_student_is_residual_and_teacher_plain(kind, dims):
    net = build(kind, dims)
    assert type(net.student) is ResidualEncoderUNet and type(net.teacher) is PlainConvUNet
    assert [len(s.blocks) for s in net.student.encoder.stages] == ([1, 3, 4] if kind == "plain" else [1, 1, 1])
    convs = [len(s[0].convs) for s in net.teacher.encoder.stages]
    assert convs == ([1, 1, 1] if kind == "plain" else [2, 2, 2])
    decoder_convs = [[len(s.convs) for s in n.decoder.stages] for n in (net.student, net.teacher)]
    assert decoder_convs == [[1, 1], [1, 1] if kind == "plain" else [2, 2]]
    for network in (net.student, net.teacher):
        assert network.encoder.output_channels == [4, 8, 8]
        assert network.encoder.conv_op is (nn.Conv3d if dims == 3 else nn.Conv2d)
        assert network.encoder.strides == [[1] * dims, [2] * dims, [2] * dims]


def test_counterparts_have_as_many_stages_as_the_plans():
    kwargs = {"n_stages": 7, "features_per_stage": [8] * 7, "n_conv_per_stage": [2] * 7, "nonlin_first": True}
    (residual_name, residual), (plain_name, plain) = counterparts("somewhere.PlainConvUNet", kwargs)
    assert plain is kwargs and plain_name == "somewhere.PlainConvUNet"
    assert residual_name.endswith(".ResidualEncoderUNet")
    assert residual == {
        "n_stages": 7,
        "features_per_stage": [8] * 7,
        "n_blocks_per_stage": [1, 3, 4, 6, 6, 6, 6],
        "n_conv_per_stage_decoder": [1] * 6,
    }
    kwargs = {"n_stages": 2, "n_blocks_per_stage": [1, 3], "stem_channels": 8}
    (_, residual), (_, plain) = counterparts("somewhere.ResidualEncoderUNet", kwargs)
    assert residual is kwargs
    assert plain == {"n_stages": 2, "n_conv_per_stage": [2, 2], "n_conv_per_stage_decoder": [2]}
    with pytest.raises(NotImplementedError, match="ResidualEncoderUNet, VNet or ResVNet in the plans, not a UMamba"):
        counterparts("somewhere.UMamba", {})


def test_each_network_has_nnunets_initialisation():
    net = build()
    for network in (net.student, net.teacher):
        convs = [m for m in network.modules() if isinstance(m, (nn.Conv3d, nn.ConvTranspose3d))]
        assert not any(m.bias.any() for m in convs if m.bias is not None)
        weight = network.encoder.stages[-1].state_dict()
        first = next(v for k, v in weight.items() if k.endswith("conv.weight"))
        gain = (2 / (1 + 1e-2**2)) ** 0.5
        assert first.std().item() == pytest.approx(gain / (8 * 27) ** 0.5, rel=0.1)
    # of residual blocks the last norm starts at zero
    assert not net.student.encoder.stages[0].blocks[0].conv2.norm.weight.any()


@pytest.mark.parametrize(("kind", "dims"), UNETS)
@pytest.mark.parametrize("deep_supervision", [True, False])
def test_logits_and_features_of_each_network(kind, dims, deep_supervision):
    net = build(kind, dims, deep_supervision=deep_supervision)
    labeled, unlabeled = images(1, dims), images(2, dims, seed=1)
    out = net(labeled, unlabeled)
    both = torch.cat((labeled, unlabeled))
    for network, logit, features in (
        (net.student, out.student, out.student_features),
        (net.teacher, out.teacher, out.teacher_features),
    ):
        expected = network(both)
        assert isinstance(logit, list) is deep_supervision
        torch.testing.assert_close(logit, expected)
        assert features.shape == (3, 4, *(16,) * dims)
        torch.testing.assert_close(network.decoder.seg_layers[-1](features), logit[0] if deep_supervision else logit)
    assert all(not module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("deep_supervision", [True, False])
def test_every_trainable_parameter_gets_a_gradient_in_one_forward(deep_supervision):
    from nnunet_ssl.training.network import freeze_unused_heads

    net = build(deep_supervision=deep_supervision)
    freeze_unused_heads(net)
    out = net(images(1), images(1, seed=1))
    outputs = [out.student, out.teacher] if not deep_supervision else [*out.student, *out.teacher]
    torch.stack([o.square().mean() for o in outputs]).sum().backward()
    assert [n for n, p in net.named_parameters() if p.requires_grad and p.grad is None] == []
    frozen = {n for n, p in net.named_parameters() if not p.requires_grad}
    assert len(frozen) == (0 if deep_supervision else 4) and all(".seg_layers.0." in n for n in frozen)


# ---- prediction


@pytest.mark.parametrize("shape", [(2, 4, 5, 6), (1, 2, 3, 4, 5)])
def test_mean_of_the_probabilities(shape):
    a, b = logits(*shape), logits(*shape, seed=1)
    fused = mean_logits(a, b)
    mean = (a.softmax(1) + b.softmax(1)) / 2
    assert mean.min() > 1e-6
    torch.testing.assert_close(fused.softmax(1), mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(fused.exp(), mean, atol=1e-6, rtol=1e-5)
    assert torch.equal(mean_logits(b, a), fused)
    regions = mean_logits(a, b, torch.tensor(True))
    torch.testing.assert_close(regions.sigmoid(), (a.sigmoid() + b.sigmoid()) / 2, atol=1e-5, rtol=0)


def test_certain_networks_are_clamped():
    certain = torch.tensor([1e4, -1e4]).view(1, 2, 1, 1)
    assert mean_logits(certain, certain).flatten().tolist() == pytest.approx([0.0, math.log(1e-6)])
    assert mean_logits(certain.half(), certain.half()).dtype == torch.float32
    limits = mean_logits(certain, certain, True).flatten().tolist()
    assert limits == pytest.approx([math.log(1e6), -math.log(1e6)], abs=0.05)
    opposite = mean_logits(certain, -certain)
    torch.testing.assert_close(opposite.softmax(1), torch.full_like(opposite, 0.5))


@pytest.mark.parametrize("dims", [2, 3])
def test_prediction_is_the_mean_and_does_not_depend_on_the_order(dims):
    net = build(dims=dims, deep_supervision=False).eval()
    x = images(2, dims)
    with torch.no_grad():
        fused = net(x)
        mean = (net.student(x).softmax(1) + net.teacher(x).softmax(1)) / 2
        torch.testing.assert_close(fused.softmax(1), mean, atol=1e-5, rtol=0)
        net.student, net.teacher = net.teacher, net.student
        torch.testing.assert_close(net(x), fused)
        before = fused.clone()
        fused += 1  # as nnU-Net does
        torch.testing.assert_close(net(x), before)
        net.region_based.fill_(True)
        sigmoid = (net.student(x).sigmoid() + net.teacher(x).sigmoid()) / 2
        torch.testing.assert_close(net(x).sigmoid(), sigmoid, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["student", "teacher"])
def test_one_network_predicts_where_asked(name):
    net = build(predict_with=name, deep_supervision=False).eval()
    x = images(1)
    assert torch.equal(net(x), getattr(net, name)(x))
    with pytest.raises(ValueError, match="mean, student, teacher"):
        build(predict_with="both")


# ---- under nnU-Net


def test_nnunet_switches_deep_supervision_of_both():
    net = build().eval()
    x = images(1)
    trainer = SimpleNamespace(network=net, is_ddp=False)
    fused = net(x)
    assert [tuple(f.shape) for f in fused] == [(1, CLASSES, 16, 16, 16), (1, CLASSES, 8, 8, 8)]
    for output, s, t in zip(fused, net.student(x), net.teacher(x), strict=True):
        torch.testing.assert_close(output, mean_logits(s, t))
    nnUNetTrainer.set_deep_supervision_enabled(trainer, False)
    assert torch.equal(net(x), fused[0]) and not net.deep_supervision
    assert isinstance(net(x, x).teacher, Tensor) and isinstance(net(x, x).student, Tensor)
    nnUNetTrainer.set_deep_supervision_enabled(trainer, True)
    assert len(net(x)) == len(net(x, x).teacher) == len(net(x, x).student) == 2


def test_checkpoints_of_training_load_strictly_and_tell_whether_there_are_regions():
    trained, fresh = build(), build(seed=1, deep_supervision=False)
    trained.region_based.fill_(True)
    fresh.load_state_dict(trained.state_dict(), strict=True)
    assert fresh.region_based.item() is True
    x = images(1)
    assert torch.equal(fresh.eval()(x), trained.eval()(x)[0])


def test_each_network_is_one_of_nnunets_own():
    net = build(deep_supervision=False).eval()
    plain = PlainConvUNet(
        1, 3, [4, 8, 8], nn.Conv3d, 3, [1, 2, 2], 1, CLASSES, 1, True, nn.InstanceNorm3d, {"affine": True},
        nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
    ).eval()  # fmt: skip
    state = {k.removeprefix("teacher."): v for k, v in net.state_dict().items() if k.startswith("teacher.")}
    plain.load_state_dict(state, strict=True)
    x = images(1)
    assert torch.equal(plain(x), net.teacher(x))


def test_both_modes_compile_without_a_graph_break():
    net = build(dims=2)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    x, u = images(2, 2), images(2, 2, seed=1)
    torch.testing.assert_close(compiled(x, u), net(x, u))
    net.decoder.deep_supervision = False
    torch.testing.assert_close(compiled(x), net(x))


def test_autocast_predicts_in_float32():
    net = build(dims=2, deep_supervision=False).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net(images(1, 2)).dtype == torch.float32
        assert net(images(1, 2), images(1, 2)).student.dtype == torch.bfloat16


# ---- dropout


def test_channel_dropout_while_training():
    net = build(channel_dropout=0.5, deep_supervision=False)
    assert (net.student_dropout, net.teacher_dropout) == ((0.0, 0.5), (0.5, 0.5))
    x = images(2)
    out = net(x, x)
    for features in (out.student_features, out.teacher_features):
        dropped = ~features.flatten(2).any(2)
        assert 0 < dropped.sum() < dropped.numel()
    bottleneck, _ = logits_and_features(net.teacher, x, bottleneck_dropout=0.5)
    assert not torch.equal(bottleneck, net.teacher(x))
    net.eval()
    torch.testing.assert_close(net(x, x).teacher, net.teacher(torch.cat((x, x))))


# ---- one network at a time


def energy(net: DualNet, x: Tensor, u: Tensor) -> Tensor:
    """A loss in which each network depends on the other."""
    out = net(x, u)
    terms = [(s.softmax(1) - t.softmax(1)).square().mean() for s, t in zip(out.student, out.teacher, strict=True)]
    return torch.stack([*terms, (out.student_features * out.teacher_features).mean()]).sum()


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_sequential_step_has_the_same_gradients(dropout):
    joint = build(channel_dropout=dropout)
    sequential = copy.deepcopy(joint)
    sequential.sequential = True
    losses = []
    for net in (joint, sequential):
        torch.manual_seed(5)
        loss = energy(net, images(1), images(2, seed=1))
        loss.backward()
        losses.append(loss)
    assert torch.equal(*losses)
    for (name, a), b in zip(joint.named_parameters(), sequential.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-7, rtol=1e-5, msg=name)
    assert any(p.grad.abs().max() > 0 for p in joint.parameters())


def peak_of_step(sequential: bool, kind: str) -> int:
    architecture = arguments(kind)
    architecture["arch_kwargs"] |= {
        "features_per_stage": [16, 32, 64],
        "n_conv_per_stage_decoder": [2, 2] if kind == "plain" else [1, 1],
        **({"n_conv_per_stage": [2, 2, 2]} if kind == "plain" else {"n_blocks_per_stage": [1, 3, 4]}),
    }
    torch.manual_seed(0)
    net = DualNet.from_plans(**architecture, deep_supervision=True, sequential=sequential)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with LiveMemory() as memory:
        energy(net, images(1, size=24), images(1, seed=1, size=24)).backward()
    assert memory.now < 0.05 * memory.peak
    return memory.peak


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_sequential_step_needs_three_fifths_of_the_memory(kind):
    joint, sequential = (peak_of_step(mode, kind) for mode in (False, True))
    one_map = 2 * 16 * 24**3 * 4
    assert joint > 12 * one_map  # the activations of two networks
    assert sequential <= 0.6 * joint


def test_live_memory_counts_what_is_alive():
    with LiveMemory() as memory:
        a = torch.zeros(1000)
        b = a.view(10, 100).t()
        assert memory.now == 4000
        c = b + 1
        assert memory.now == 8000
        del a, b
        assert memory.now == 4000
        c.add_(1)
        x = c.clone().requires_grad_()
        y = x.exp()  # saves its result
        assert (memory.now, memory.peak) == (12000, 12000)
        y.sum().backward()
        assert memory.peak >= 16000 and x.grad is not None
