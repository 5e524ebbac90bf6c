"""A queue of embeddings per class, the same on every rank."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_ssl.losses.gaussian_contrast import gaussian_statistics
from nnunet_ssl.training.distributed import gather_ranks


class ClassMemory(nn.Module):
    """First in, first out, per class; lives on the training device and in the checkpoint, without a gradient.

    Source: the class queues of PLGCL's released code (capacity 4096, 128 dimensions). No method synchronises with the
    device.

    Args:
        classes: K.
        capacity: keys kept per class.
        dimensions: D of a key.
        dtype: of the keys; half precision is no choice for their statistics.
    """

    keys: Tensor
    pushed: Tensor

    def __init__(self, classes: int, capacity: int = 4096, dimensions: int = 128, dtype=torch.float32) -> None:
        super().__init__()
        self.classes, self.capacity = classes, capacity
        # the slot behind the last one takes what is not to be kept, so that no shape depends on the data
        self.register_buffer("keys", torch.zeros(classes, capacity + 1, dimensions, dtype=dtype))
        self.register_buffer("pushed", torch.zeros(classes, dtype=torch.int64))

    @property
    def counts(self) -> Tensor:
        """(K,) int64, N_k."""
        return self.pushed.clamp(max=self.capacity)

    @torch.no_grad()
    def push(self, keys: Tensor, classes: Tensor, valid: Tensor | None = None) -> None:
        """Append the keys of all ranks in rank order; every rank must call it, with as many keys, whether valid or not.

        Args:
            keys: (N, D); those that are not finite are dropped.
            classes: (N,) int64, 0 to K - 1.
            valid: (N,) bool; ``None`` keeps all.
        """
        kept = keys.isfinite().all(1)
        kept = kept if valid is None else kept & valid
        keys = keys.to(self.keys.dtype).nan_to_num()
        packed = gather_ranks(torch.cat([keys, classes[:, None].to(keys), kept[:, None].to(keys)], 1))
        keys, classes, kept = packed[:, :-2], packed[:, -2].long(), packed[:, -1] > 0

        member = F.one_hot(classes, self.classes) * kept[:, None]  # (N, K)
        arriving = member.sum(0)
        place = (member.cumsum(0) - 1).gather(1, classes[:, None])[:, 0]
        kept &= place >= arriving[classes] - self.capacity  # of more than fit, the last
        slot = (self.pushed[classes] + place) % self.capacity
        self.keys[classes, torch.where(kept, slot, self.capacity)] = keys * kept[:, None]
        self.pushed += arriving

    def statistics(self, covariance: str = "full") -> tuple[Tensor, Tensor]:
        """Means (K, D) and covariances (K, D, D) with 1 / N; see :func:`gaussian_statistics`."""
        valid = torch.arange(self.capacity, device=self.keys.device) < self.counts[:, None]
        return gaussian_statistics(self.keys[:, : self.capacity], valid, covariance)
