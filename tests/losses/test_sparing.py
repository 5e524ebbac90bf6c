"""Losses of large maps in less memory: the same values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from nnunet_ssl.losses import consistency, sparing
from nnunet_ssl.losses.consistency import cosine_consistency, uncertainty_rectified_cross_entropy
from nnunet_ssl.losses.prototypes import prototype_contrast
from tests.live_memory import LiveMemory

SHAPE = (4, 14, 24, 24, 24)


def maps(seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)).to(dtype).requires_grad_()


def spare(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (consistency, sparing):
        monkeypatch.setattr(module, "LARGE", 1)


MASK = torch.rand(4, 1, 24, 24, 24, generator=torch.Generator().manual_seed(2)) < 0.6
LOSSES: list[Callable[..., Tensor]] = [
    cosine_consistency,
    partial(cosine_consistency, mask=MASK),
    partial(uncertainty_rectified_cross_entropy, mask=MASK),
    partial(uncertainty_rectified_cross_entropy, hard_target=True, detach_weight=True),
]


@pytest.mark.parametrize("loss", LOSSES)
def test_large_maps_give_the_same_loss_in_less_memory(monkeypatch, loss):
    found, peaks = [], []
    for spared in (False, True):
        if spared:
            spare(monkeypatch)
        a, b = maps(0), maps(1)
        with LiveMemory() as memory:
            value = loss(a, b)
            gradients = torch.autograd.grad(value, (a, b), retain_graph=True, allow_unused=True)
            del gradients
            gradients = torch.autograd.grad(value, (a, b), allow_unused=True)  # a look at the pull comes before
        found.append((value.detach(), *(g for g in gradients if g is not None)))
        peaks.append(memory.peak)
    assert len(found[0]) == len(found[1])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-9)
    assert peaks[1] < 0.6 * peaks[0]


def test_prototypes_of_half_precision_features_need_no_map_in_float32():
    reliable = torch.randint(-1, 3, (4, 24, 24, 24), generator=torch.Generator().manual_seed(3))
    uncertain = torch.where(reliable < 0, 1, -1)
    found, peaks = [], []
    for dtype in (torch.float32, torch.bfloat16):
        features = maps(0, torch.bfloat16).detach().to(dtype).requires_grad_()
        with LiveMemory() as memory:
            generator = torch.Generator().manual_seed(4)
            value = prototype_contrast(features, reliable, uncertain, 3, generator=generator)
            (gradient,) = torch.autograd.grad(value, features)
        found.append((value.detach(), gradient.float()))
        peaks.append(memory.peak)
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-6, atol=0)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-2, atol=1e-6)
    assert peaks[1] < 1.6 * 4 * features.numel()  # bytes of the map in float32, of which a copy has a gradient, too
