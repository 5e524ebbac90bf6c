"""How many queries a network of queries uses. Read only: nothing here enters a loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def query_perplexity(responses: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(exp H(N), exp(H(N) - H(G))) of the shares of voxels that respond most to each query; scalars on the same device.

    H(N): entropy over the queries, which grows with the balance of the classes too; H(G): over their groups. The second
    number is how many queries a group uses, averaged over its voxels; 1: the queries within groups are one.

    Args:
        responses: (B, N, *S).
        sizes: queries of each group, in the order of the queries.
    """
    nearest = responses.max(1).indices.flatten()
    share = responses.new_zeros(responses.shape[1]).scatter_add_(0, nearest, responses.new_ones(1).expand_as(nearest))
    share = share / nearest.numel()
    of_groups = torch.stack([part.sum() for part in share.split(list(sizes))])
    queries, groups = (torch.special.entr(shares).sum() for shares in (share, of_groups))
    return queries.exp(), (queries - groups).exp()
