"""Means that agree between one process and several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def number_of_ranks() -> int:
    return dist.get_world_size() if is_distributed() else 1


def rank() -> int:
    return dist.get_rank() if is_distributed() else 0


@torch.no_grad()
def ddp_weight(count: Tensor) -> Tensor:
    """Factor that turns this rank's mean over ``count`` elements into its part of the mean over all ranks.

    DDP averages gradients over ranks with equal weight. A mean over valid voxels needs weights proportional to their
    number: world_size * count / sum of counts. One process: 1. Every rank must call it.
    """
    count = count.detach().float()
    if not is_distributed():
        return torch.ones_like(count)
    total = count.clone()
    dist.all_reduce(total)
    return dist.get_world_size() * count / total.clamp(min=1.0)


def voxel_mean(loss: Callable[..., Tensor], *arguments: Any, mask: Tensor | None, **options: Any) -> Tensor:
    """loss(*arguments, mask=mask, **options) as its part of the mean over the voxels of all ranks.

    What methods call for a mean over voxels, so that none has to think of several processes. Every rank must call it.

    Args:
        loss: returns a mean over the voxels of its argument ``mask``.
        arguments: of the loss; the first one is a tensor (B, K, *S).
        mask: (B, 1, *S), true or 1 where a voxel counts; ``None`` counts all.
    """
    return loss(*arguments, mask=mask, **options) * ddp_weight(voxel_count(mask, arguments[0]))


def voxel_count(mask: Tensor | None, like: Tensor) -> Tensor:
    """How many voxels of (B, K, *S) count: a float scalar on the device."""
    if mask is not None:
        return mask.sum().float()
    return like.new_full((), like[:, 0].numel(), dtype=torch.float32)


def masked_mean_over_ranks(
    values: Tensor, mask: Tensor, groups: Tensor | None = None, number: int = 1, balanced: bool = False
) -> Tensor:
    """This rank's part, times the number of ranks, of the mean of the values that count; 0, connected, without any.

    For values that are no loss's mean yet, such as one per patch. Every rank must call it.

    Args:
        values: (N,); what does not count receives a gradient of zero.
        mask: (N,) bool, what counts.
        groups: (N,) int64, 0 to number - 1, such as the class of each value; ``None``: all are of one group.
        number: of groups.
        balanced: the mean over the groups that count of the means within each.
    """
    groups = torch.zeros_like(mask, dtype=torch.int64) if groups is None else groups
    sizes = sum_over_ranks((F.one_hot(groups, number) * mask[:, None]).sum(0))
    total = sizes[groups] * (sizes > 0).sum() if balanced else sizes.sum()
    return torch.where(mask, values / total.clamp(min=1), 0.0).sum() * number_of_ranks()


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
