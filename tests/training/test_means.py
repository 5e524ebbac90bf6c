from __future__ import annotations

import torch

from nnunet_ssl.training.distributed import ddp_weight, masked_mean_over_ranks, voxel_count, voxel_mean

GROUPS = torch.tensor([0, 0, 0, 2, 2])
COUNTED = torch.tensor([True, True, False, True, False])


def test_mean_of_what_counts():
    values = torch.tensor([1.0, 3.0, 100.0, 8.0, torch.inf], requires_grad=True)
    mean = masked_mean_over_ranks(values, COUNTED, GROUPS, 3)
    assert mean.item() == 4.0
    mean.backward()
    torch.testing.assert_close(values.grad, COUNTED / 3)


def test_mean_of_the_means_of_groups_that_count():
    values = torch.tensor([1.0, 3.0, 100.0, 8.0, 100.0])
    assert masked_mean_over_ranks(values, COUNTED, GROUPS, 3, balanced=True).item() == 5.0


def test_nothing_counts():
    for balanced in (False, True):
        values = torch.ones(5, requires_grad=True)
        mean = masked_mean_over_ranks(values, torch.zeros(5, dtype=torch.bool), GROUPS, 3, balanced)
        assert mean.item() == 0.0
        mean.backward()
        assert torch.equal(values.grad, torch.zeros(5))


def test_without_groups_it_is_the_mean_of_what_counts():
    assert masked_mean_over_ranks(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([True, True, False])).item() == 2.0


def test_mean_over_voxels_of_a_loss_in_one_process_is_the_loss():
    def loss(logits: torch.Tensor, factor: float, mask: torch.Tensor | None = None, power: int = 1) -> torch.Tensor:
        return factor * (logits[mask.expand_as(logits)] if mask is not None else logits).mean() ** power

    logits = torch.arange(12.0).view(1, 2, 6)
    mask = torch.tensor([0, 1, 1, 0, 0, 0], dtype=torch.bool).view(1, 1, 6)
    assert voxel_mean(loss, logits, 2.0, mask=mask, power=2).item() == 2 * 4.5**2
    assert voxel_mean(loss, logits, 1.0, mask=None).item() == 5.5
    assert voxel_count(mask, logits).item() == 2 and voxel_count(None, logits).item() == 6
    assert ddp_weight(torch.tensor(3)).item() == 1
