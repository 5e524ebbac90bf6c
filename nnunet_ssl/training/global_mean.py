"""The mean of what counts on all ranks together, for a gradient that DDP averages over ranks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_ssl.training.distributed import number_of_ranks, sum_over_ranks


def global_mean(values: Tensor, counted: Tensor, groups: Tensor, number: int, balanced: bool = False) -> Tensor:
    """This rank's part, times the number of ranks, of the mean of the values that count; 0, connected, without any.

    Every rank must call it.

    Args:
        values: (N,); what does not count receives a gradient of zero.
        counted: (N,) bool.
        groups: (N,) int64, 0 to number - 1, such as the class of each value.
        number: of groups.
        balanced: the mean over the groups that count of the means within each.
    """
    sizes = sum_over_ranks((F.one_hot(groups, number) * counted[:, None]).sum(0))
    total = sizes[groups] * (sizes > 0).sum() if balanced else sizes.sum()
    return torch.where(counted, values / total.clamp(min=1), 0.0).sum() * number_of_ranks()
