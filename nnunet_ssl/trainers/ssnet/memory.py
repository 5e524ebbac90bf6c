"""The features of each class that SS-Net remembers, the same on every rank."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nnunet_ssl.training.distributed import gather_ranks

NOTHING = -torch.inf  # score of an empty place


class FeatureMemory(nn.Module):
    """Of each class the best vectors of the last step that showed it; in the checkpoint, without gradient.

    Args:
        classes: F.
        places: M per class.
        size: D of a vector.
    """

    vectors: Tensor
    number: Tensor

    def __init__(self, classes: int, places: int, size: int) -> None:
        super().__init__()
        self.places = places
        self.register_buffer("vectors", torch.zeros(classes, places, size))
        self.register_buffer("number", torch.zeros(classes, dtype=torch.int64))

    @property
    def filled(self) -> Tensor:
        """(F, M) bool."""
        return torch.arange(self.places, device=self.number.device) < self.number[:, None]

    @torch.no_grad()
    def replace(self, vectors: Tensor, scores: Tensor, valid: Tensor) -> None:
        """The vectors of all ranks with the highest scores; a class without a valid one keeps what it has.

        Every rank must call it, with vectors or without.

        Args:
            vectors: (F, N, D).
            scores: (F, N).
            valid: (F, N) bool.
        """
        valid = valid & vectors.isfinite().all(2)  # mixed precision skips a step in which they are not
        scored = torch.cat([vectors, scores[..., None].masked_fill(~valid[..., None], NOTHING)], 2)
        own = self._best(scored.nan_to_num(neginf=NOTHING))
        of_ranks = gather_ranks(own[None]).transpose(0, 1).flatten(1, 2)
        best = self._best(of_ranks)
        filled = best[..., -1:] > NOTHING
        number = filled.sum((1, 2))
        seen = number > 0
        self.vectors.copy_(torch.where(seen[:, None, None], best[..., :-1] * filled, self.vectors))
        self.number.copy_(torch.where(seen, number, self.number))

    def _best(self, scored: Tensor) -> Tensor:
        """(F, M, D + 1) of vectors with their scores behind (F, N, D + 1), filled up with empty places."""
        order = scored[..., -1].topk(min(self.places, scored.shape[1]), 1).indices
        best = scored.gather(1, order[..., None].expand(-1, -1, scored.shape[2]))
        filled = scored.new_full((len(scored), self.places, scored.shape[2]), NOTHING)
        filled[..., :-1] = 0
        filled[:, : best.shape[1]] = best
        return filled
