from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_ssl.trainers.unimatch.feature_dropout import FeatureDropout


class Net(nn.Module):
    """Answers with what its decoder receives."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Identity()
        self.decoder = nn.Identity()

    def forward(self, skips: list[torch.Tensor]) -> list[torch.Tensor]:
        return self.decoder(skips)


def skips() -> list[torch.Tensor]:
    return [torch.ones(4, 1000, 3, 2), torch.ones(4, 800, 2, 2, 2)]


def test_whole_channels_of_every_skip_of_the_last_samples_are_dropped():
    torch.manual_seed(0)
    net = Net()
    dropout = FeatureDropout(net, 0.5)
    with dropout.of_last(3):
        found = net(skips())
    for skip in found:
        assert (skip[:1] == 1).all()
        channels = skip[1:].flatten(2)
        assert (channels == channels[..., :1]).all()  # whole channels
        assert set(channels.unique().tolist()) == {0.0, 2.0}
        assert channels[..., 0].mean().item() == pytest.approx(1.0, abs=0.06)
        assert not torch.equal(channels[0], channels[1])
    assert all(torch.equal(a, b) for a, b in zip(net(skips()), skips(), strict=True))  # only inside


def test_probability_0_changes_no_bit():
    net = Net()
    dropout = FeatureDropout(net, 0.0)
    given = [torch.randn(4, 5, 3, 2)]
    with dropout.of_last(2):
        assert torch.equal(net(given)[0], given[0])


def test_a_network_without_skips_is_refused():
    with pytest.raises(NotImplementedError, match="Conv2d has no encoder .* feature_dropout=null"):
        FeatureDropout(nn.Conv2d(1, 1, 1), 0.5)
