"""How many queries a network of queries uses. Read only: nothing here enters a loss."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def query_perplexity(responses: Tensor) -> Tensor:
    """exp(entropy) of the shares of voxels that respond most to each query: 1 to N, a scalar on the same device.

    Args:
        responses: (B, N, *S).
    """
    nearest = responses.max(1).indices.flatten()
    share = responses.new_zeros(responses.shape[1]).scatter_add_(0, nearest, responses.new_ones(1).expand_as(nearest))
    return torch.special.entr(share / nearest.numel()).sum().exp()
