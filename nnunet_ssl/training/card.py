"""The few facts about a method that `nnunet_ssl methods` and the documentation show."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class MethodCard:
    """One row of the table of trainers.

    Attributes:
        paper: authors, title or venue and year.
        predicts: which network ends up in the checkpoint.
        dimensions: "2D, 3D" or a restriction.
        extra_memory: beyond nnU-Net on the same number of patches.
        extra_time: ratio to nnU-Net's step on the same number of patches.
    """

    paper: str
    predicts: str
    dimensions: str
    extra_memory: str
    extra_time: str

    def step_ratio(self, dimensions: int) -> float:
        """The number of ``extra_time`` for 2 or 3 dimensions, or where it names none, the first one."""
        number = re.search(rf"(\d+(?:\.\d+)?) \({dimensions}D\)", self.extra_time)
        return float(number[1]) if number else self.time_ratio

    @property
    def time_ratio(self) -> float:
        """The first number of ``extra_time``; infinite where there is none."""
        number = re.search(r"\d+(\.\d+)?", self.extra_time)
        return float(number[0]) if number else float("inf")
