"""Learning rates as functions of the epoch, which nnU-Net hands to its scheduler; nothing to save for a resume."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class StepScheduler:
    """The learning rate, divided by ``factor`` at each of ``drops``, which are fractions of the training.

    Args:
        optimizer: all of its groups get the same rate.
        initial_lr: until the first drop.
        num_epochs: the length of the training.
        drops: an epoch that begins at or after such a fraction has the lower rate.
        factor: 10 divides by ten.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        initial_lr: float,
        num_epochs: int,
        drops: Sequence[float],
        factor: float = 10.0,
    ) -> None:
        self.optimizer, self.initial_lr, self.num_epochs = optimizer, initial_lr, num_epochs
        self.drops, self.factor = tuple(drops), factor

    def step(self, epoch: int) -> None:
        """Set the rate of the epoch that begins."""
        passed = sum(epoch / self.num_epochs >= drop for drop in self.drops)
        for group in self.optimizer.param_groups:
            group["lr"] = self.initial_lr / self.factor**passed
