from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from nnunet_ssl.losses.pyramid_consistency import pyramid_consistency


def outputs(*pairs: tuple[float, float]) -> torch.Tensor:
    """Logits (1, 2, 1, n) of voxels with these probabilities."""
    return torch.tensor(pairs, dtype=torch.float64).log().T.reshape(1, 2, 1, -1)


FIRST, SECOND = outputs((0.9, 0.1), (0.8, 0.2)), outputs((0.5, 0.5), (0.7, 0.3))


def of_each_scale(monkeypatch: pytest.MonkeyPatch, scales: list[torch.Tensor], *options: Any) -> list[torch.Tensor]:
    """The L_s of which the function returns the mean."""
    stacked, stack = [], torch.stack
    with monkeypatch.context() as patch:
        patch.setattr(torch, "stack", lambda tensors, *args: stacked.append(tensors) or stack(tensors, *args))
        pyramid_consistency(scales, *options)
    return stacked[-1]


def alone(voxel: int) -> torch.Tensor:
    return (torch.arange(2) == voxel).view(1, 1, 1, 2)


def test_divergences_weights_and_sums_of_each_scale(monkeypatch):
    expected = {
        0: ((0.15366359, 0.00738200), (0.85756047, 0.99264518), 0.10040384),
        1: ((0.08228288, 0.00616426), (0.92101139, 0.99385470), 0.06476030),
    }
    scales, p = [FIRST, SECOND], torch.stack([FIRST, SECOND]).exp()
    square = torch.square(p.mean(0) - p).mean(2).flatten(1)
    found = of_each_scale(monkeypatch, scales)
    for scale, (divergence, weight, total) in expected.items():
        assert found[scale].item() == pytest.approx(total, abs=1e-8)
        # of a voxel alone, the weight cancels
        own = torch.stack([of_each_scale(monkeypatch, scales, alone(v))[scale] for v in (0, 1)]) - square[scale]
        assert own.tolist() == pytest.approx(divergence, abs=2e-8)
        assert (-own).exp().tolist() == pytest.approx(weight, abs=2e-8)
        w = torch.tensor(weight)
        assert (square[scale] * w).mean() / w.mean() + own.mean() == pytest.approx(total, abs=2e-8)


@pytest.mark.parametrize(
    ("detach", "expected"),
    [
        (False, ((-0.20171750, -0.97534693), (-0.23488463, -0.31921411))),
        (True, ((-0.38888889, -1.5), (-0.46875, -0.625))),
    ],
)
def test_gradient_of_the_divergence_alone(monkeypatch, detach, expected):
    """To probabilities that are free to move, without the squared distance."""
    first, second = FIRST.exp().requires_grad_(), SECOND.exp()
    monkeypatch.setattr(torch, "square", torch.zeros_like)
    monkeypatch.setattr(torch.Tensor, "log_softmax", lambda z, dim: z)
    divergence, _ = of_each_scale(monkeypatch, [first.log(), second.log()], None, detach)
    assert divergence.item() == pytest.approx((0.15366359 + 0.00738200) / 2, abs=1e-8)
    gradient = torch.autograd.grad(divergence, first)[0]
    assert gradient[0, :, 0].T.flatten().tolist() == pytest.approx([*expected[0], *expected[1]], abs=1e-8)


def test_value_of_the_specification():
    assert pyramid_consistency([FIRST, SECOND]).item() == pytest.approx(0.08258207, abs=1e-8)
    assert pyramid_consistency([SECOND, FIRST]).item() == pytest.approx(0.08258207, abs=1e-8)
    region = [z[:, :1] - z[:, 1:] for z in (FIRST, SECOND)]  # the divergence of two classes is that of the region
    assert pyramid_consistency(region, regions=True).item() == pytest.approx(0.08258207, abs=1e-8)


def test_uniform_divergence_cancels_in_the_weight():
    first, second = outputs((0.9, 0.1)), outputs((0.5, 0.5))
    mean, terms = 0.7, []
    for p in (0.9, 0.5):
        u = mean * torch.tensor(mean / p).log() + (1 - mean) * torch.tensor((1 - mean) / (1 - p)).log()
        terms.append((mean - p) ** 2 + u.item())
    assert pyramid_consistency([first, second]).item() == pytest.approx(sum(terms) / 2, abs=1e-7)


def test_equal_outputs_and_a_single_one():
    z = torch.randn(2, 3, 4, 4)
    assert pyramid_consistency([z, z.clone()]).item() == pytest.approx(0.0, abs=1e-7)
    assert pyramid_consistency([z]).item() == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("detach", [False, True])
def test_gradient_through_the_mean(detach):
    first, second = FIRST.clone().requires_grad_(), SECOND.clone().requires_grad_()
    found = torch.autograd.grad(pyramid_consistency([first, second], detach_mean=detach), first)[0]
    log_p = [z.log_softmax(1) for z in (first, second)]
    log_mean = torch.stack(log_p).logsumexp(0) - torch.tensor(2.0).log()
    log_mean = log_mean.detach() if detach else log_mean
    losses = []
    for log_s in log_p:
        u = (log_mean.exp() * (log_mean - log_s)).sum(1)
        w = (-u).exp()
        square = torch.square(log_mean.exp() - log_s.exp()).mean(1)
        losses.append((square * w).mean() / (w.mean() + 1e-8) + u.mean())
    expected = torch.autograd.grad(sum(losses) / 2, first)[0]
    torch.testing.assert_close(found, expected)


def test_coarse_scales_are_interpolated():
    fine, coarse = torch.randn(1, 3, 8, 8), torch.randn(1, 3, 4, 2)
    upsampled = F.interpolate(coarse, (8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(pyramid_consistency([fine, coarse]), pyramid_consistency([fine, upsampled]))
    volume = [torch.randn(1, 2, 4, 8, 8), torch.randn(1, 2, 4, 4, 4)]
    assert torch.isfinite(pyramid_consistency(volume))


def test_masked_voxels_and_extreme_logits():
    z = (torch.randn(2, 3, 6, 6).sign() * 200).requires_grad_()
    other, mask = torch.randn(2, 3, 6, 6), torch.rand(2, 1, 6, 6) < 0.5
    loss = pyramid_consistency([z, other], mask)
    gradient = torch.autograd.grad(loss, z)[0]
    assert torch.isfinite(loss) and torch.isfinite(gradient).all()
    assert (gradient * ~mask).count_nonzero() == 0
    empty = pyramid_consistency([z, other], torch.zeros_like(mask))
    assert empty.item() == 0.0 and torch.autograd.grad(empty, z)[0].count_nonzero() == 0
