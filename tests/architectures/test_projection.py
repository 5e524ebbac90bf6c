"""From patches to embeddings: which stages run, what is pooled, and a head whose embeddings do not start alike."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn
from torch.nn import functional as F

from nnunet_ssl.architectures.projection import MaskedBatchNorm, ProjectionHead, pooled_features
from nnunet_ssl.losses.gaussian_contrast import gaussian_info_nce, gaussian_statistics


class Encoder(nn.Module):
    """Each stage halves the image and adds 1; the last one must not run."""

    def __init__(self, with_stem: bool) -> None:
        super().__init__()
        self.stem = Scale(10.0) if with_stem else None
        self.stages = nn.Sequential(Scale(1.0), Scale(2.0), Scale(float("nan")))


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x[..., ::2, ::2] + 1


@pytest.mark.parametrize("with_stem, expected", [(False, [5.0, 7.0]), (True, [25.0, 45.0])])
def test_features_are_means_of_the_asked_stage(with_stem, expected):
    images = torch.tensor([[1.0], [2.0]]).view(2, 1, 1, 1).expand(2, 1, 16, 16)
    found = pooled_features(Encoder(with_stem), images.half(), 1)
    assert found.dtype == torch.float32
    assert found.tolist() == [[x] for x in expected]


def test_the_mean_is_over_space_alone():
    x = torch.rand(2, 3, 4, 6)
    encoder = Encoder(False)
    encoder.stages = nn.Sequential(nn.Identity())
    torch.testing.assert_close(pooled_features(encoder, x, 0), x.mean((2, 3)))


def unet(kind: type, norm: Any = nn.InstanceNorm2d) -> Any:
    torch.manual_seed(0)
    blocks = {("n_blocks_per_stage" if kind is ResidualEncoderUNet else "n_conv_per_stage"): [2, 2, 2]}
    return kind(
        1, 3, [8, 16, 32], nn.Conv2d, 3, [1, 2, 2], num_classes=2, n_conv_per_stage_decoder=[1, 1], conv_bias=True,
        norm_op=norm, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU, **blocks,
    )  # fmt: skip


@pytest.mark.parametrize("norm", [nn.InstanceNorm2d, nn.BatchNorm2d])
@pytest.mark.parametrize("kind", [PlainConvUNet, ResidualEncoderUNet])
def test_what_is_pooled_is_the_input_of_the_norm_that_runs_last(kind, norm):
    encoder = unet(kind, norm).eval().encoder
    x = torch.randn(3, 1, 16, 16)
    stage = encoder.stages[1]
    block = stage.blocks[-1] if kind is ResidualEncoderUNet else stage[-1]
    conv = block.conv2 if kind is ResidualEncoderUNet else block.convs[-1]
    seen = []
    with torch.no_grad():
        before = encoder(x)
        handle = conv.conv.register_forward_hook(lambda module, inputs, output: seen.append(output))
        encoder(x)
        handle.remove()
        torch.testing.assert_close(pooled_features(encoder, x, 1), seen[0].mean((2, 3)))
        assert not any(module._forward_pre_hooks for module in encoder.modules())
        assert all(torch.equal(a, b) for a, b in zip(before, encoder(x), strict=True))


def test_pooling_before_the_norm_tells_images_apart():
    """Of four positions behind an instance norm, the mean is at most 0.495, and hardly below, whatever the image."""
    encoder = unet(PlainConvUNet).encoder
    images = torch.randn(20, 1, 8, 8) * torch.linspace(0.5, 2, 20).view(-1, 1, 1, 1)
    with torch.no_grad():
        behind = encoder(images)[2].mean((2, 3))  # 2 x 2 positions
        before = pooled_features(encoder, images, 2)
    assert behind.min() > 0.3 and behind.max() < 0.496
    spread = [(x.std(0) / x.abs().mean(0)).mean().item() for x in (behind, before)]
    assert spread[0] < 0.15 < 0.5 < spread[1]


# ---- the head


def test_head_is_linear_norm_relu_linear_norm_of_unit_length():
    torch.manual_seed(0)
    head, x = ProjectionHead(6, 4), torch.randn(9, 6)
    valid = torch.arange(9) < 7
    hidden = x @ head.hidden.weight.T
    out = normed(normed(hidden, valid).clamp(min=0) @ head.out.weight.T, valid)
    expected = out / out.norm(dim=1, keepdim=True)
    for training in (True, False):
        torch.testing.assert_close(head.train(training)(x, valid), expected)
    assert head.hidden.weight.shape == (6, 6) and ProjectionHead(6)(x, valid).shape == (9, 128)
    assert head.hidden.bias is None and head.out.bias is None and not [*head.buffers()]


def normed(rows: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    counted = rows[valid]
    return (rows - counted.mean(0)) / (counted.var(0, unbiased=False) + 1e-5).sqrt()


def test_norm_of_valid_rows_is_torchs_batch_norm():
    torch.manual_seed(0)
    mine, theirs = MaskedBatchNorm(5), nn.BatchNorm1d(5)
    for norm in (mine, theirs):
        norm.weight.data = torch.arange(1.0, 6.0)
        norm.bias.data = torch.arange(5.0)
    rows, valid = 3 + torch.randn(8, 5), torch.tensor([True, False] * 4)
    first, second = rows.clone().requires_grad_(), rows[valid].clone().requires_grad_()
    weight = torch.randn(8, 5)
    (mine(first, valid) * weight * valid[:, None]).sum().backward()
    (theirs(second) * weight[valid]).sum().backward()
    torch.testing.assert_close(mine(first, valid)[valid], theirs(second))
    torch.testing.assert_close(first.grad[valid], second.grad)
    assert not first.grad[~valid].any()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_few_valid_rows_or_rows_alike_give_finite_gradients(number):
    head, x = ProjectionHead(6, 4), torch.ones(5, 6, requires_grad=True)
    valid = torch.arange(5) < number
    (head(x, valid) * valid[:, None]).sum().backward()
    assert x.grad.isfinite().all() and all(p.grad.isfinite().all() for p in head.parameters())


def contrast_of(embed: Any, seed: int) -> tuple[float, float]:
    """(loss, norm of its gradient on the features) of 4 classes x 21 patches as pooled behind an instance norm.

    320 features of mean 0.45 and coefficient of variation 7 %, a quarter of the variance between the classes;
    covariances without weight, zeta 1024.
    """
    chance = torch.Generator().manual_seed(seed)
    classes = torch.arange(4).repeat_interleave(21)
    centres, own = (torch.randn(n, 320, generator=chance) for n in (4, 84))
    features = (0.45 * (1 + 0.07 * (0.5 * centres[classes] + math.sqrt(0.75) * own))).requires_grad_()
    queries = embed(features)
    keys = queries.detach().view(4, 21, -1)
    means, covariances = gaussian_statistics(keys, torch.ones(4, 21, dtype=torch.bool))
    usable = torch.ones(4, dtype=torch.bool)
    loss = gaussian_info_nce(queries, classes, means, covariances, usable, 0.2, 0.0, 1024.0).mean()
    loss.backward()
    return loss.item(), features.grad.norm().item()


COLLAPSE = math.log(1 + 1024 * 3)


@pytest.mark.parametrize("seed", range(3))
def test_contrast_does_not_start_collapsed(seed):
    torch.manual_seed(seed)
    head, valid = ProjectionHead(320), torch.ones(84, dtype=torch.bool)
    loss, gradient = contrast_of(lambda features: head(features, valid), seed)
    assert loss < 0.9 * COLLAPSE and gradient > 1  # 6.95 to 7.03, 1.09 to 1.13


def test_a_layer_norm_in_the_head_would():
    """Why the head has batch norms, which need the patches of all ranks."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(320, 320), nn.LayerNorm(320), nn.LeakyReLU(0.01), nn.Linear(320, 128))
    loss, gradient = contrast_of(lambda features: F.normalize(layers(features), dim=1), 0)
    assert loss > 0.998 * COLLAPSE and gradient < 0.02  # 8.02, 0.0055
