"""Means that agree between one process and several."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch import distributed as dist


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


@torch.no_grad()
def rank_share(count: Tensor) -> Tensor:
    """Factor that turns this rank's mean over ``count`` elements into its part of the mean over all ranks.

    DDP averages gradients over ranks with equal weight. A mean over valid voxels needs weights proportional to their
    number: world_size * count / sum of counts. One process: 1.
    """
    count = count.detach().float()
    if not is_distributed():
        return torch.ones_like(count)
    total = count.clone()
    dist.all_reduce(total)
    return dist.get_world_size() * count / total.clamp(min=1.0)


@torch.no_grad()
def gather_ranks(rows: Tensor) -> Tensor:
    """The rows (N, ...) of all ranks, (ranks * N, ...) in rank order; each must have as many. One process: as is."""
    if not is_distributed():
        return rows
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


@torch.no_grad()
def sum_over_ranks(values: Tensor) -> Tensor:
    """Elementwise sum over all ranks. One process: as is."""
    if is_distributed():
        values = values.clone()
        dist.all_reduce(values)
    return values


@torch.no_grad()
def take_from_first_rank(module: nn.Module) -> nn.Module:
    """Parameters and buffers become those of rank 0, in place, as DDP does to what it wraps. One process: as is.

    For frozen copies of a module that each rank has initialised for itself.
    """
    if is_distributed():
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor, 0)
    return module


def number_of_ranks() -> int:
    return dist.get_world_size() if is_distributed() else 1
