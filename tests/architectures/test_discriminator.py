"""The discriminator of distance maps: sizes, thin axes, what it looks at."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_ssl.architectures.discriminator import MapDiscriminator


@pytest.mark.parametrize(
    ("patch", "strides"),
    [
        ((32, 16), [(2, 2), (2, 2), (2, 1), (1, 1)]),
        ((6, 20, 20), [(1, 2, 2), (1, 2, 2), (1, 1, 1), (1, 1, 1)]),
    ],
)
def test_thin_axes_are_not_halved(patch, strides):
    network = MapDiscriminator(2, 1, patch, width=4)
    found = [network.of_maps, *(m for m in network.layers if hasattr(m, "stride"))]
    assert [c.stride for c in found] == strides and [c.out_channels for c in found] == [4, 8, 16, 32]
    assert all(k == (4 if s == 2 else 3) for c in found for k, s in zip(c.kernel_size, c.stride, strict=True))
    assert network(torch.randn(3, 2, *patch), torch.randn(3, 1, *patch)).shape == (3, 2)


def test_maps_and_image_are_added_and_dropout_ends_before_the_last_layer():
    network = MapDiscriminator(1, 1, (16, 16), width=4).eval()
    maps, images = torch.randn(2, 1, 16, 16), torch.randn(2, 1, 16, 16)
    assert [type(m).__name__ for m in network.layers][:3] == ["LeakyReLU", "Dropout2d", "Conv2d"]
    assert sum(isinstance(m, nn.Dropout2d) for m in network.layers) == 3 and isinstance(
        network.layers[-1], nn.LeakyReLU
    )
    expected = network.decide(network.layers(network.of_maps(maps) + network.of_image(images)).mean((2, 3)))
    torch.testing.assert_close(network(maps, images), expected)
    assert not torch.equal(network(maps, images), network(maps, 0 * images))
