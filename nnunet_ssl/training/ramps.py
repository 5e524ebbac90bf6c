"""Weights of loss terms: ramps over training progress in [0, 1], and a guard that looks at the pseudo-labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nnunet_ssl.training.distributed import number_of_ranks, sum_over_ranks

MOST = 0.25  # of training, that a floor in steps may take
ENOUGH = 0.1  # of the foreground that labels show, in pseudo-labels
EXCESS = 2.0  # times the labels' foreground, above which a look counts no more: untrained networks see it everywhere
WINDOW = 10  # looks of a running mean, at least
WINDOW_FRACTION = 0.01  # of training


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
        floor: steps that warm-up and rise, where there is one, take at least, for short training runs; each at most a
            quarter of training.
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
        least = min(self.floor / steps, MOST)
        warmup, rise = (max(part, least) if part > 0 else 0.0 for part in (self.warmup, self.rise))
        if progress < warmup:
            return 0.0
        since = progress if self.from_start else progress - warmup
        return self.curve(since / rise) if rise > 0 and since < rise else 1.0


START = Ramp(0.02, floor=250)
"""Of the weights that a guard holds (recommended): what an untrained network labels teaches nothing."""


class Guard:
    """Knows how far pseudo-labels fall short of the foreground that labels show. Equal on all ranks.

    Shares of voxels are running means over the looks at a batch: plain averages at first, then exponential ones.
    """

    def __init__(self) -> None:
        self._looks = 0
        self._labeled: list[float] = []
        self._pseudo: list[float] = []

    @property
    def factor(self) -> float:
        """Minimum over the classes that labels show of share(pseudo-labels) / (0.1 share(labels)), at most 1."""
        shares = zip(self._pseudo, self._labeled, strict=True)
        return min((min(pseudo / (ENOUGH * labeled), 1.0) for pseudo, labeled in shares if labeled > 0), default=1.0)

    @torch.no_grad()
    def look(self, labeled: Tensor, pseudo: Tensor, steps: float) -> None:
        """Take in a batch; waits for the device.

        Args:
            labeled, pseudo: (F,) share of each foreground class or region among the voxels that count.
            steps: looks that training consists of; their hundredth is the window of the mean, if that is above 10.
        """
        table = sum_over_ranks(torch.stack([labeled, pseudo]).float()) / number_of_ranks()
        self._looks += 1
        newest = 1 / min(self._looks, max(WINDOW, WINDOW_FRACTION * steps))
        now, guess = table.cpu().tolist()
        before = zip(self._labeled or now, now, strict=True)
        self._labeled = [mean + newest * (share - mean) for mean, share in before]
        guess = [min(share, EXCESS * most) for share, most in zip(guess, self._labeled, strict=True)]
        before = zip(self._pseudo or guess, guess, strict=True)
        self._pseudo = [mean + newest * (share - mean) for mean, share in before]

    def state(self) -> dict[str, Any]:
        return {"looks": self._looks, "labeled": self._labeled, "pseudo": self._pseudo}

    def load_state(self, state: dict[str, Any]) -> None:
        self._looks, self._labeled, self._pseudo = state["looks"], list(state["labeled"]), list(state["pseudo"])
