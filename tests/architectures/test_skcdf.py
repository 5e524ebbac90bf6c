from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from types import SimpleNamespace

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from nnunet_ssl.architectures.skcdf import SKCDFNet, SKCDFOutput, bottleneck_size, drop_channels
from tests.tiny import Tiny, plans_of

UNETS = [(kind, dims) for kind in ("plain", "residual") for dims in (2, 3)]
CLASSES = 3


def arguments(kind: str = "plain", dims: int = 3, patch: tuple[int, ...] | None = None) -> dict:
    """The architecture of a tiny plan: three stages, a bottleneck of 4 voxels per axis unless the patch says else."""
    plans = plans_of(Tiny(residual=kind == "residual"))
    configuration = plans["configurations"]["3d_fullres" if dims == 3 else "2d"]
    architecture = configuration["architecture"]
    return {
        "arch_class_name": architecture["network_class_name"],
        "arch_kwargs": architecture["arch_kwargs"],
        "arch_kwargs_req_import": architecture["_kw_requires_import"],
        "patch_size": patch or configuration["patch_size"],
        "input_channels": 1,
        "output_channels": CLASSES,
    }


def build(kind: str = "plain", dims: int = 3, seed: int = 0, patch=None, deep_supervision=True, **options) -> SKCDFNet:
    torch.manual_seed(seed)
    options = options if options.get("complementarity") is False else {"dropout": 0.0, **options}
    return SKCDFNet.from_plans(**arguments(kind, dims, patch), deep_supervision=deep_supervision, **options)


def images(batch: int, dims: int = 3, seed: int = 0, patch=None) -> Tensor:
    size = patch or (16,) * dims
    return torch.randn(batch, 1, *size, generator=torch.Generator().manual_seed(seed))


def energy(logits: Tensor | list[Tensor]) -> Tensor:
    """A loss that depends on every logit."""
    return torch.stack([x.square().mean() for x in (logits if isinstance(logits, list) else [logits])]).sum()


def losses(output: SKCDFOutput) -> dict[str, Tensor]:
    terms = {
        "supervised": output.labeled_main,
        "supervised balanced": output.labeled_auxiliary,
        "unsupervised": output.unlabeled_main,
        "unsupervised balanced": output.unlabeled_auxiliary,
    }
    return {name: energy(logits) for name, logits in terms.items() if logits is not None}


def groups(net: SKCDFNet) -> dict[str, list[nn.Parameter]]:
    found = {"encoder": [*net.encoder.parameters()], "complementarity": [*net.complementarity.parameters()]}
    for name, decoder in (("labeled", net.labeled_decoder), ("unlabeled", net.unlabeled_decoder)):
        unet_decoder = decoder.unet_decoder
        found[f"{name} decoder"] = [*unet_decoder.transpconvs.parameters(), *unet_decoder.stages.parameters()]
        found[f"{name} main"] = [*unet_decoder.seg_layers.parameters()]
        found[f"{name} auxiliary"] = [*decoder.auxiliary_head.parameters()]
    return found


RECEIVERS = {
    "supervised": {"encoder", "complementarity", "labeled decoder", "labeled main"},
    "supervised balanced": {"encoder", "complementarity", "labeled decoder", "labeled auxiliary"},
    "unsupervised": {"encoder", "complementarity", "unlabeled decoder", "unlabeled main"},
    "unsupervised balanced": {"encoder", "complementarity", "unlabeled decoder", "unlabeled auxiliary"},
}

# ---- who learns from what


@pytest.mark.parametrize(("kind", "dims"), UNETS)
def test_each_loss_reaches_its_own_weights_and_images(kind, dims):
    net = build(kind, dims)
    labeled, unlabeled = images(2, dims).requires_grad_(), images(3, dims, seed=1).requires_grad_()
    terms, parameters = losses(net(labeled, unlabeled)), groups(net)
    assert sum(map(len, parameters.values())) == len([*net.parameters()])
    for name, loss in terms.items():
        for group, members in parameters.items():
            gradients = torch.autograd.grad(loss, members, retain_graph=True, allow_unused=True)
            if group in RECEIVERS[name]:
                assert all(g is not None for g in gradients), (name, group)
                assert sum(g.abs().sum() for g in gradients) > 0, (name, group)
            else:
                assert all(g is None for g in gradients), (name, group)
        own, other = torch.autograd.grad(loss, (labeled, unlabeled), retain_graph=True)
        if name.startswith("unsupervised"):
            own, other = other, own
        assert own.abs().sum() > 0 and not other.any(), name


def test_guided_logits_carry_no_gradient_and_follow_the_labelled_decoder():
    net = build(max_context=None)
    labeled, unlabeled = images(2), images(3, seed=1)
    output = net(labeled, unlabeled)
    for logits in (output.guided_main, output.guided_auxiliary):
        assert logits.shape == (3, CLASSES, 16, 16, 16) and not logits.requires_grad
    # with the streams exchanged, the unlabelled images take the way of the labelled ones
    exchanged = net(unlabeled, labeled)
    torch.testing.assert_close(output.guided_main, exchanged.labeled_main[0].detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(output.guided_auxiliary, exchanged.labeled_auxiliary.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("deep_supervision", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"decoupling": False},
        {"complementarity": False},
        {"balanced_heads": False},
        {"inference_decoder": "labeled"},
        {"decoupling": False, "complementarity": False, "balanced_heads": False},
    ],
    ids=lambda o: ", ".join(o) or "full",
)
def test_every_trainable_parameter_gets_a_gradient_in_one_forward(options, deep_supervision):
    """What DDP without a search for unused parameters needs."""
    net = build(deep_supervision=deep_supervision, **options)
    torch.stack([*losses(net(images(1), images(2, seed=1))).values()]).sum().backward()
    assert [n for n, p in net.named_parameters() if p.requires_grad and p.grad is None] == []
    frozen = {n for n, p in net.named_parameters() if not p.requires_grad}
    assert all(".seg_layers.0." in name for name in frozen) and bool(frozen) is not deep_supervision


# ---- prediction


@pytest.mark.parametrize(("kind", "dims"), UNETS)
def test_prediction_is_the_unlabelled_decoder_alone(kind, dims):
    net = build(kind, dims, deep_supervision=False).eval()
    x = images(3, dims)
    with torch.no_grad():
        before = net(x)
        skips = net.encoder(x)
        skips[-1] = net.complementarity(skips[-1])
        torch.testing.assert_close(before, net.unlabeled_decoder.unet_decoder(skips))
        assert before.shape == (3, CLASSES, *(16,) * dims)
        assert torch.equal(net(x), before)
        torch.testing.assert_close(net(x[1:2]), before[1:2], atol=1e-5, rtol=1e-4)
        for ignored in (net.labeled_decoder, net.unlabeled_decoder.auxiliary_head):
            for parameter in ignored.parameters():
                parameter += 1
        assert torch.equal(net(x), before)
        for parameter in net.unlabeled_decoder.main_head.parameters():
            parameter += 1
        assert not torch.equal(net(x), before)


def test_prediction_is_the_second_pass_of_training():
    net = build(deep_supervision=False)
    x = images(2)
    output = net(images(1, seed=1), x)
    torch.testing.assert_close(net.eval()(x), output.unlabeled_main, atol=1e-5, rtol=1e-4)


def test_the_labelled_decoder_predicts_where_asked():
    net = build(inference_decoder="labeled", deep_supervision=False).eval()
    assert net.decoder is net.labeled_decoder
    x = images(1)
    skips = net.encoder(x)
    skips[-1] = net.complementarity.cross(skips[-1], skips[-1])[0]  # as trained, with its own context
    torch.testing.assert_close(net(x), net.labeled_decoder.unet_decoder(skips))
    both = images(2)
    torch.testing.assert_close(net(both)[1:], net(both[1:]), atol=1e-5, rtol=1e-4)


# ---- under nnU-Net


@pytest.mark.parametrize("inference_decoder", ["unlabeled", "labeled"])
def test_nnunet_switches_deep_supervision_of_both_decoders(inference_decoder):
    net = build(inference_decoder=inference_decoder)
    trainer = SimpleNamespace(network=net, is_ddp=False)
    labeled, unlabeled = images(1), images(2, seed=1)
    output = net(labeled, unlabeled)
    for main, auxiliary, batch in (
        (output.labeled_main, output.labeled_auxiliary, 1),
        (output.unlabeled_main, output.unlabeled_auxiliary, 2),
    ):
        assert [tuple(x.shape) for x in main] == [(batch, CLASSES, *(s,) * 3) for s in (16, 8)]
        assert auxiliary.shape == main[0].shape
    assert isinstance(net.eval()(labeled), list)

    nnUNetTrainer.set_deep_supervision_enabled(trainer, False)
    plain = net(labeled, unlabeled)
    assert torch.equal(plain.labeled_main, output.labeled_main[0])
    assert torch.equal(plain.unlabeled_main, output.unlabeled_main[0])
    assert isinstance(net(labeled), Tensor)
    nnUNetTrainer.set_deep_supervision_enabled(trainer, True)
    assert len(net(labeled)) == 2


@pytest.mark.parametrize(("kind", "dims"), UNETS)
def test_checkpoints_of_training_load_strictly_for_prediction(kind, dims):
    trained, fresh = build(kind, dims), build(kind, dims, seed=1, deep_supervision=False)
    fresh.load_state_dict(trained.state_dict(), strict=True)
    x = images(1, dims)
    assert torch.equal(fresh.eval()(x), trained.eval()(x)[0])


def test_no_tensor_is_stored_under_two_parts_of_the_network():
    net = build("residual")
    names = defaultdict(set)
    for name, tensor in net.state_dict().items():
        names[tensor.data_ptr()].add(name)
    for aliases in names.values():  # the building blocks of nnU-Net's library name each layer twice
        for first, second in combinations(aliases, 2):
            shared = [a for a, b in zip(first.split("."), second.split("."), strict=False) if a == b]
            assert "all_modules" in first + second and len(shared) >= 3
    assert {name.split(".")[0] for name in net.state_dict()} == {"encoder", "complementarity", "decoders"}
    assert not any("encoder" in name for name in net.decoders.state_dict())


def test_the_encoder_and_the_labelled_decoder_are_the_plans_own():
    torch.manual_seed(0)
    unet = PlainConvUNet(
        1, 3, [4, 8, 8], nn.Conv2d, 3, [1, 2, 2], 1, CLASSES, 1, True, nn.InstanceNorm2d, {"affine": True}
    )
    x = images(2, 2)
    expected = unet(x)
    net = SKCDFNet(unet, (16, 16), complementarity=False, inference_decoder="labeled")
    assert torch.equal(net(x), expected)


def test_decoders_and_heads_start_apart_with_nnunets_initialisation():
    net = build()
    first, second = ([*d.parameters()] for d in (net.labeled_decoder, net.unlabeled_decoder))
    assert [p.shape for p in first] == [p.shape for p in second]
    weights = [(a, b) for a, b in zip(first, second, strict=True) if a.ndim > 1]
    assert len(weights) == 7 and all((a - b).abs().min() > 0 for a, b in weights)
    for decoder in (net.labeled_decoder, net.unlabeled_decoder):
        main, auxiliary = decoder.main_head, decoder.auxiliary_head
        assert main.weight.shape == auxiliary.weight.shape and (main.weight - auxiliary.weight).abs().min() > 0
        assert not any(m.bias.any() for m in decoder.modules() if isinstance(m, (nn.Conv3d, nn.ConvTranspose3d)))
    upsampling = build(seed=2).unlabeled_decoder.unet_decoder.transpconvs[0].weight  # 8 -> 8 channels, 2^3 voxels
    gain = (2 / (1 + 1e-2**2)) ** 0.5
    assert upsampling.std().item() == pytest.approx(gain / (8 * 8) ** 0.5, rel=0.15)


# ---- sizes, precision, compilation


@pytest.mark.parametrize(
    ("dims", "patch", "bottleneck"),
    [(2, (20, 12), (5, 3)), (3, (20, 12, 28), (5, 3, 7)), (3, (4, 20, 16), (4, 5, 4)), (2, (12, 4), (3, 1))],
)
def test_odd_and_anisotropic_bottlenecks(dims, patch, bottleneck):
    architecture = arguments("plain", dims, patch)
    pool = [p // b for p, b in zip(patch, bottleneck, strict=True)]
    architecture["arch_kwargs"]["strides"] = [[1] * dims, [min(2, s) for s in pool], [max(1, s // 2) for s in pool]]
    net = SKCDFNet.from_plans(**architecture, deep_supervision=True)
    assert net.complementarity.local_attention.size == bottleneck
    assert all(size % 2 == 0 or size == 1 for size in net.complementarity.local_attention.padded)
    output = net(images(2, patch=patch), images(1, seed=1, patch=patch))
    assert output.labeled_main[0].shape == (2, CLASSES, *patch)
    assert output.guided_main.shape == (1, CLASSES, *patch)
    assert all(loss.isfinite() for loss in losses(output).values())


def test_wrong_sizes_and_networks_are_refused():
    assert bottleneck_size([[1, 1, 1], [1, 2, 2], [2, 2, 2]], (10, 16, 20)) == [5, 4, 5]
    with pytest.raises(ValueError, match="not divisible"):
        build(patch=(16, 16, 18))
    with pytest.raises(ValueError, match="patch size"):
        build()(images(1, patch=(16, 16, 24)))
    with pytest.raises(ValueError, match="inference_decoder"):
        build(inference_decoder="teacher")
    with pytest.raises(NotImplementedError, match="PlainConvUNet, ResidualEncoderUNet or VNet"):
        SKCDFNet(nn.Conv3d(1, 2, 1), (16, 16, 16))


def test_autocast_keeps_attention_in_float32_and_every_gradient():
    net = build()
    seen = defaultdict(set)

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen[type(module)].add(output.dtype)

    for module in net.modules():
        if isinstance(module, (nn.Linear, nn.LayerNorm, nn.Conv3d, nn.ConvTranspose3d)):
            module.register_forward_hook(record)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = net(images(2), images(2, seed=1))
    assert seen[nn.Linear] == seen[nn.LayerNorm] == {torch.float32}
    assert seen[nn.Conv3d] == seen[nn.ConvTranspose3d] == {torch.bfloat16}
    torch.stack([*losses(output).values()]).sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in net.parameters())


def test_both_modes_compile_without_a_graph_break():
    net = build(dims=2, max_context=2)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    labeled, unlabeled = images(2, 2), images(2, 2, seed=1)
    for got, expected in zip(compiled(labeled, unlabeled), net(labeled, unlabeled), strict=True):
        torch.testing.assert_close(got, expected)
    net.decoder.deep_supervision = False
    torch.testing.assert_close(compiled(labeled), net(labeled))
    more = build(dims=2, max_context=1)  # draws its context at random
    assert torch.compile(more, backend="eager", fullgraph=True)(labeled, unlabeled).guided_main.shape == (2, 3, 16, 16)


# ---- ablations


def test_without_decoupling_one_decoder_serves_both():
    net = build(decoupling=False)
    assert net.unlabeled_decoder is net.labeled_decoder is net.decoder
    assert [*net.decoders] == ["labeled"]
    output = net(images(1), images(2, seed=1))
    head = net.labeled_decoder.main_head.weight
    for loss in (energy(output.labeled_main), energy(output.unlabeled_main)):
        assert torch.autograd.grad(loss, head, retain_graph=True)[0].abs().sum() > 0


def test_without_complementarity_the_streams_are_independent():
    net = build(complementarity=False)
    assert net.complementarity is None
    labeled = images(1)
    first, second = (net(labeled, images(2, seed=s)) for s in (1, 2))
    torch.testing.assert_close(first.labeled_main, second.labeled_main)
    torch.testing.assert_close(first.guided_main, net(images(2, seed=1), labeled).labeled_main[0].detach())
    assert not first.guided_main.requires_grad
    full = build()
    first, second = (full(labeled, images(2, seed=s)) for s in (1, 2))
    assert not torch.allclose(first.labeled_main[0], second.labeled_main[0])


def test_without_balanced_heads_there_are_no_auxiliary_logits():
    net = build(balanced_heads=False)
    output = net(images(1), images(1, seed=1))
    assert output.labeled_auxiliary is output.guided_auxiliary is output.unlabeled_auxiliary is None
    full = [*build().parameters()]
    assert len(full) - len([*net.parameters()]) == 4


def test_channel_dropout():
    x = torch.ones(50, 40, 2, 3)
    torch.manual_seed(0)
    dropped = drop_channels(x, 0.25)
    assert torch.equal(dropped, dropped[..., :1, :1].expand_as(x))
    assert {round(v, 4) for v in dropped.unique().tolist()} == {0.0, 1.3333}
    assert (dropped[..., 0, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.04)  # 4 standard errors

    net = build(channel_dropout=0.5, deep_supervision=False)
    labeled, unlabeled = images(1), images(1, seed=1)
    maps = []
    for head in (net.unlabeled_decoder.main_head, net.unlabeled_decoder.auxiliary_head):
        head.register_forward_hook(lambda _, inputs, __: maps.append(inputs[0]))
    net(labeled, unlabeled)
    assert len(maps) == 2 and maps[0] is maps[1]  # both heads see the same channels
    assert 0 < sum(not channel.any() for channel in maps[0][0]) < 4

    # at the bottleneck and before the heads, in each stream but not where the pseudo-labels come from
    net = build(channel_dropout=0.5, deep_supervision=False, complementarity=False)
    seen = {}
    for name, decoder in (("labelled", net.labeled_decoder), ("unlabelled", net.unlabeled_decoder)):
        for place, module in (("bottom", decoder.unet_decoder.transpconvs[0]), ("top", decoder.main_head)):
            seen[name, place] = []
            module.register_forward_hook(lambda _, inputs, __, to=seen[name, place]: to.append(inputs[0]))
    net(images(6), images(6, seed=1))
    dropped = {key: [(~x.flatten(2).any(-1)).float().mean().item() for x in maps] for key, maps in seen.items()}
    for place in ("bottom", "top"):
        (labelled, guided), (unlabelled,) = dropped["labelled", place], dropped["unlabelled", place]
        assert 0.2 < labelled < 0.8 and 0.2 < unlabelled < 0.8 and guided == 0.0

    for channels, attention in ((0.5, 0.0), (0.0, 0.5)):  # unless asked for, as released
        net = build(channel_dropout=channels, dropout=attention, deep_supervision=False, guided_dropout=True)
        first, second = net(labeled, unlabeled), net(labeled, unlabeled)
        assert not torch.equal(first.guided_main, second.guided_main)
        assert not torch.equal(first.guided_auxiliary, second.guided_auxiliary)

    net = build(channel_dropout=0.5, deep_supervision=False)
    first, second = net(labeled, unlabeled), net(labeled, unlabeled)
    assert not torch.equal(first.labeled_main, second.labeled_main)
    assert not torch.equal(first.unlabeled_main, second.unlabeled_main)
    net.eval()
    first, second = net(labeled, unlabeled), net(labeled, unlabeled)
    assert torch.equal(first.labeled_main, second.labeled_main)
    torch.testing.assert_close(net(unlabeled), first.unlabeled_main, atol=1e-5, rtol=1e-4)


def test_residual_encoders_are_taken_from_the_library():
    net = build("residual")
    assert type(net.encoder).__name__ == "ResidualEncoder"
    torch.manual_seed(0)
    unet = ResidualEncoderUNet(1, 2, [4, 8], nn.Conv2d, 3, [1, 2], 1, CLASSES, 1, deep_supervision=True)
    encoder, decoder = unet.encoder, unet.decoder
    net = SKCDFNet(unet, (8, 8))
    assert net.encoder is encoder and net.labeled_decoder.unet_decoder is decoder
