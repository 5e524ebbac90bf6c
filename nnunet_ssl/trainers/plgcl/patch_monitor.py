"""What is worth knowing about the candidates and the classes in memory during training."""

from __future__ import annotations

from torch import Tensor

from nnunet_ssl.losses.gaussian_contrast import mean_cosine
from nnunet_ssl.trainers.plgcl.class_memory import ClassMemory
from nnunet_ssl.training.monitor import COUNT, Monitor


def observe_memory(monitor: Monitor, memory: ClassMemory, means: Tensor, usable: Tensor) -> None:
    """Log N_k and |mu_k| of every class, and the mean cosine between the means of the usable ones.

    Args:
        means: (K, D), mu.
        usable: (K,) bool.
    """
    monitor.add("mean_cosine", *mean_cosine(means, usable))
    for k, (count, norm) in enumerate(zip(memory.counts, means.norm(dim=1), strict=True)):
        monitor.add(f"{COUNT}keys_{k}", count)
        monitor.add(f"mean_norm_{k}", norm)


def observe_candidates(monitor: Monitor, candidates: Tensor, neighbours: int) -> None:
    """Log the candidates of every class, and where it has any whether all were taken: then similarity chose nothing.

    Args:
        candidates: (K,) int64, windows that could have been chosen.
        neighbours: n; a class takes up to n + 1 windows, and none where there is one alone.
    """
    takes_part, all_taken = candidates >= 2, candidates <= neighbours + 1
    for k, number in enumerate(candidates):
        monitor.add(f"{COUNT}candidates_{k}", number)
        monitor.add(f"all_taken_{k}", all_taken[k].float(), takes_part[k].float())
