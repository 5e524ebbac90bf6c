"""Decoders beside that of a U-Net: what they upsample with, and what they hold."""

from __future__ import annotations

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn
from torch.nn import functional as F

from nnunet_ssl.architectures.unet_decoder import decoder_alone, interpolating_decoder
from tests.tiny import Tiny, plans_of


def unet(dims: int = 3, residual: bool = False, patch: tuple[int, ...] = (16, 16, 16)) -> PlainConvUNet:
    plans = plans_of(Tiny(residual=residual, patch_3d=patch))["configurations"]
    architecture = plans["3d_fullres" if dims == 3 else "2d"]["architecture"]
    names = (architecture[key] for key in ("network_class_name", "arch_kwargs", "_kw_requires_import"))
    torch.manual_seed(0)
    return get_network_from_plans(*names, 1, 3, deep_supervision=True)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize(
    ("dims", "residual", "patch"), [(2, False, (16, 16)), (3, True, (16,) * 3), (3, False, (6, 20, 20))]
)
def test_outputs_have_the_sizes_of_the_network_s_own(dims, residual, patch, mode):
    network = unet(dims, residual, patch)
    decoder = interpolating_decoder(unet(dims, residual, patch), mode, "it")
    images = torch.randn(2, 1, *patch)
    own, other = network(images), decoder(network.encoder(images))
    assert [x.shape for x in own] == [x.shape for x in other]
    torch.stack([x.square().mean() for x in other]).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in decoder.parameters())
    assert not any("encoder" in name for name, _ in decoder.named_modules())


def test_convolution_and_interpolation_in_either_order():
    decoder = interpolating_decoder(unet(2), "linear", "it")
    (convolution, resize), features = decoder.transpconvs[1], torch.randn(1, 8, 5, 4)
    assert convolution.kernel_size == (1, 1) and not any(isinstance(m, nn.ConvTranspose2d) for m in decoder.modules())
    expected = convolution(F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False))
    torch.testing.assert_close(resize(convolution(features)), expected)
    nearest = interpolating_decoder(unet(2), "nearest", "it").transpconvs[1][1]
    assert torch.equal(nearest(features), features.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_a_network_of_another_kind():
    with pytest.raises(
        NotImplementedError, match="MC-Net needs a PlainConvUNet, ResidualEncoderUNet or VNet .* not a Linear"
    ):
        decoder_alone(nn.Linear(1, 1), "MC-Net")
