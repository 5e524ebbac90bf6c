from __future__ import annotations

import torch

from nnunet_ssl.training.global_mean import global_mean

GROUPS = torch.tensor([0, 0, 0, 2, 2])
COUNTED = torch.tensor([True, True, False, True, False])


def test_mean_of_what_counts():
    values = torch.tensor([1.0, 3.0, 100.0, 8.0, torch.inf], requires_grad=True)
    mean = global_mean(values, COUNTED, GROUPS, 3)
    assert mean.item() == 4.0
    mean.backward()
    torch.testing.assert_close(values.grad, COUNTED / 3)


def test_mean_of_the_means_of_groups_that_count():
    values = torch.tensor([1.0, 3.0, 100.0, 8.0, 100.0])
    assert global_mean(values, COUNTED, GROUPS, 3, balanced=True).item() == 5.0


def test_nothing_counts():
    for balanced in (False, True):
        values = torch.ones(5, requires_grad=True)
        mean = global_mean(values, torch.zeros(5, dtype=torch.bool), GROUPS, 3, balanced)
        assert mean.item() == 0.0
        mean.backward()
        assert torch.equal(values.grad, torch.zeros(5))
