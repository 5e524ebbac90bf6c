"""How much of a voxel's assignment falls to each group of queries, and the likelihood of the right group.

Source: DKUXNet (Wu, Li & Zhang, ISBI 2024), Sec. 2.2.3 and Fig. 1, where the loss is drawn without a formula; with the
mean over voxels and in logarithms, since the released sum overflows and is infinite where a group has underflown.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_ssl.losses.precision import at_least_float32


def log_query_distribution(responses: Tensor, group_of_query: Tensor) -> Tensor:
    """log Q_g = logsumexp over the queries of group g of R - logsumexp over all queries of R.

    Args:
        responses: R (B, N, *S); a constant added to all queries of a voxel changes nothing.
        group_of_query: (N,) long, 0 to G - 1, each group with a query; in main memory, since its values are read.

    Returns:
        (B, G, *S), float32 (float64 for float64 responses); the exponentials sum to 1 over the groups.

    Raises:
        ValueError: not one group per query, or a group without queries.
    """
    responses = at_least_float32(responses)
    members = _members(responses, group_of_query)
    of_groups = torch.stack([_pick(responses, queries).logsumexp(1) for queries in members], 1)
    return of_groups - of_groups.logsumexp(1, keepdim=True)


def query_distribution_loss(
    responses: Tensor, target_groups: Tensor, group_of_query: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Mean over voxels of -log of the assignment mass of the target's group.

    Args:
        responses: R (B, N, *S); receives the gradient.
        target_groups: (B, 1, *S) long; may hold anything where masked out. Never written to.
        group_of_query: (N,) long, see :func:`log_query_distribution`.
        mask: (B, 1, *S), true or 1 where a voxel counts; ``None`` counts all. All zero gives 0, still connected.

    Returns:
        Scalar, float32 (float64 for float64 responses); ln(N / N_g) for equal responses.
    """
    log_mass = log_query_distribution(responses, group_of_query)
    if mask is None:
        return -log_mass.gather(1, target_groups.long()).mean()
    counted = mask.bool()
    chosen = log_mass.gather(1, torch.where(counted, target_groups, 0).long())
    return -torch.where(counted, chosen, 0.0).sum() / counted.sum().clamp(min=1)


def _members(responses: Tensor, group_of_query: Tensor) -> list[list[int]]:
    groups: list[int] = group_of_query.tolist()
    if len(groups) != responses.shape[1]:
        raise ValueError(f"{responses.shape[1]} queries need as many groups, got {len(groups)}")
    members = [[n for n, group in enumerate(groups) if group == g] for g in range(max(groups) + 1)]
    if min(groups) < 0 or not all(members):
        raise ValueError(f"groups must be numbered from 0 and have a query each, got {groups}")
    return members


def _pick(responses: Tensor, queries: list[int]) -> Tensor:
    """Without a copy where the queries of a group stand together, as they do in DKUXNet."""
    if queries == list(range(queries[0], queries[-1] + 1)):
        return responses[:, queries[0] : queries[-1] + 1]
    return responses[:, queries]
