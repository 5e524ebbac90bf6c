"""Ramps: weights as functions of training progress in [0, 1], so that length and resuming need no care."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


def sigmoid_rampup(progress: float) -> float:
    """exp(-5 (1 - clip(progress, 0, 1))^2): 0.0067 at the start, 1 at the end.

    Source: the ramp of Laine & Aila, "Temporal ensembling" (ICLR 2017), as used by Mean Teacher and its successors.
    """
    return math.exp(-5.0 * (1.0 - min(max(progress, 0.0), 1.0)) ** 2)


def linear_rampup(progress: float) -> float:
    """A straight line from 0 at the start to 1 at the end."""
    return min(max(progress, 0.0), 1.0)


@dataclass(frozen=True)
class Ramp:
    """0 in the warm-up, then rising to 1: what warm-up and ramp mean in every method.

    Attributes:
        rise: fraction of training over which it rises; 0: at once.
        warmup: fraction of training before that.
        floor: steps that warm-up and rise, where there is one, take at least, for short training runs.
        from_start: the rise begins with training, hidden by the warm-up, and not behind it.
        curve: of the rise, from progress in [0, 1].
    """

    rise: float
    warmup: float = 0.0
    floor: int = 0
    from_start: bool = False
    curve: Callable[[float], float] = sigmoid_rampup

    def at(self, progress: float, steps: int) -> float:
        """The value at this progress of a training run of so many steps."""
        least = self.floor / steps
        warmup, rise = (max(part, least) if part > 0 else 0.0 for part in (self.warmup, self.rise))
        if progress < warmup:
            return 0.0
        since = progress if self.from_start else progress - warmup
        return self.curve(since / rise) if rise > 0 and since < rise else 1.0
