"""Whose turn it is: periods of random length, the same on every rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class Alternation:
    """Periods of 1 to ``longest`` steps, uniformly drawn, of the first and the second teacher in turns.

    Args:
        longest: in steps.
        seed: equal on all ranks.

    Attributes:
        second: it is the second teacher's turn.
    """

    def __init__(self, longest: int, seed: int) -> None:
        self.longest, self.second = longest, False
        self._generator = torch.Generator().manual_seed(seed % 2**62)
        self._left = self._draw()

    def _draw(self) -> int:
        return int(torch.randint(1, self.longest + 1, (), generator=self._generator))

    def advance(self) -> None:
        """After a step."""
        self._left -= 1
        if self._left == 0:
            self.second, self._left = not self.second, self._draw()

    def decay(self, second: bool, steps: int, own: Callable[[int], float]) -> float:
        """Of a teacher: 1 outside its periods, 0 in the copy phase, then ``own`` of its steps, half of all.

        Args:
            second: whether it is the second teacher.
            steps: since the copy phase; below 0 in it.
            own: decay of the number of a teacher's steps.
        """
        if self.second != second:
            return 1.0
        return own(steps // 2) if steps >= 0 else 0.0

    def beta(self) -> float:
        """From Beta(4, 4), of which the median of seven uniform numbers is one draw."""
        return float(torch.rand(7, generator=self._generator).median())

    def state(self) -> dict[str, Any]:
        """For ``auxiliary_state``."""
        return {"second": self.second, "left": self._left, "generator": self._generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.second, self._left = state["second"], state["left"]
        self._generator.set_state(state["generator"].cpu())
