from __future__ import annotations

import math

import pytest
import torch

from nnunet_ssl.losses.consistency import softmax_mse
from nnunet_ssl.losses.uncertainty import certain_mse, certainty_threshold, predictive_entropy
from nnunet_ssl.training.ramps import sigmoid_rampup


def logits(*foreground: float) -> torch.Tensor:
    p = torch.tensor(foreground, dtype=torch.float64)
    return torch.stack((p, 1 - p)).log().view(1, 2, 1, -1)


def test_entropy_of_the_mean_of_passes():
    mean = torch.tensor([0.7, 0.3], dtype=torch.float64).view(1, 2, 1, 1)
    assert predictive_entropy(mean).item() == pytest.approx(0.61086230, abs=1e-8)
    uniform = torch.full((1, 5, 2, 2), 0.2)
    assert predictive_entropy(uniform).flatten().tolist() == pytest.approx([math.log(5)] * 4, abs=1e-5)
    certain = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    assert abs(predictive_entropy(certain).item()) < 2e-6
    assert predictive_entropy(mean[:, :1], regions=True).item() == pytest.approx(0.61086230, abs=1e-8)


@pytest.mark.parametrize(
    ("classes", "values"),
    [
        (2, (0.52102798, 0.56950788, 0.69314718)),
        (4, (1.0420559653, 1.13901577, 1.38629436)),
        (14, (1.9837384543, 2.16831864, 2.63905733)),
    ],
)
def test_threshold_over_training(classes, values):
    # its ramp is a little above 0 at the start: exp(-5)
    found = [certainty_threshold(sigmoid_rampup(progress), classes) for progress in (0.0, 0.5, 1.0)]
    assert found == pytest.approx(values, rel=1e-7)


def test_certain_voxels_alone_count():
    student, teacher = logits(0.8, 0.6).requires_grad_(), logits(0.9, 0.2).requires_grad_()
    first = torch.tensor([True, False]).view(1, 1, 1, 2)
    loss = certain_mse(student, teacher, first)
    assert loss.item() == pytest.approx(0.01, abs=1e-10)
    gradient = torch.autograd.grad(loss, student)[0]
    assert gradient[..., 1].count_nonzero() == 0 and gradient[..., 0].count_nonzero() == 2
    both = certain_mse(student, teacher, torch.ones_like(first))
    assert both.item() == pytest.approx(0.085, abs=1e-10)
    torch.testing.assert_close(both.float(), softmax_mse(student, teacher))
    assert certain_mse(student, teacher, first, divisor=1).item() == pytest.approx(0.02, abs=1e-10)
    assert not torch.autograd.grad(both, teacher, allow_unused=True)[0]


def test_no_certain_voxel_gives_zero():
    student = logits(0.5, 0.5).requires_grad_()
    loss = certain_mse(student, logits(0.1, 0.9), torch.zeros(1, 1, 1, 2, dtype=torch.bool))
    assert loss.item() == 0.0 and torch.autograd.grad(loss, student)[0].count_nonzero() == 0
