"""From patches to embeddings: which stages run, and the layers of the head."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnunet_ssl.architectures.projection import ProjectionHead, pooled_features


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


def test_head_is_linear_norm_leaky_linear_of_unit_length():
    torch.manual_seed(0)
    head, x = ProjectionHead(6, 4), torch.randn(3, 6)
    (w1, b1), (w2, b2) = ((layer.weight, layer.bias) for layer in (head.hidden, head.out))
    hidden = x @ w1.T + b1
    centred = hidden - hidden.mean(1, keepdim=True)
    normed = centred / (hidden.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    out = torch.where(normed > 0, normed, 0.01 * normed) @ w2.T + b2
    torch.testing.assert_close(head(x), out / out.norm(dim=1, keepdim=True))
    assert w1.shape == (6, 6) and ProjectionHead(6)(x).shape == (3, 128)
    # one patch is enough, and no patch depends on another
    torch.testing.assert_close(head(x[:1]), F.normalize(head(x), dim=1)[:1])
