from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from nnunet_ssl.losses.pyramid_consistency import pyramid_consistency


def outputs(*pairs: tuple[float, float]) -> torch.Tensor:
    """Logits (1, 2, 1, n) of voxels with these probabilities."""
    return torch.tensor(pairs, dtype=torch.float64).log().T.reshape(1, 2, 1, -1)


FIRST, SECOND = outputs((0.9, 0.1), (0.8, 0.2)), outputs((0.5, 0.5), (0.7, 0.3))


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
    assert pyramid_consistency([z, z.clone()]).item() == pytest.approx(0.0, abs=1e-6)
    assert pyramid_consistency([z]).item() == pytest.approx(0.0, abs=1e-6)


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
