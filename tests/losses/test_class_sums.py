from __future__ import annotations

import torch

from nnunet_ssl.losses.class_sums import sum_by_class


def test_sums_and_their_gradient():
    values = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]).view(1, 1, 2, 3).requires_grad_()
    label = torch.tensor([0, 2, 2, 0, 1, 2]).view(1, 1, 2, 3)
    sums = sum_by_class(values, label, 4)
    assert sums.tolist() == [9.0, 16.0, 38.0, 0.0]
    (gradient,) = torch.autograd.grad(sums[2] * 3, values)
    assert gradient.flatten().tolist() == [0.0, 3.0, 3.0, 0.0, 0.0, 3.0]


def test_millions_of_values_lose_no_digits():
    values, label = torch.full((2, 1, 128, 128, 64), 0.1), torch.zeros(2, 1, 128, 128, 64, dtype=torch.int64)
    assert abs(sum_by_class(values, label, 2)[0].item() / values.numel() - 0.1) < 1e-6
