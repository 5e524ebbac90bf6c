"""What the project has measured where labels are few."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

FILE = Path(__file__).with_name("measured.csv")


@dataclass(frozen=True)
class Measured:
    """One trainer with its defaults in one comparison; written by benchmarks/measured.py.

    Attributes:
        data: dataset and number of labels, in words.
        dimensions: 2 or 3.
        steps: length of every run.
        page: name of the page in docs/benchmarks.
        trainer: its name.
        runs: number of seeds.
        dice: mean of the runs, as is all that follows.
        spread: largest difference between two runs.
        control, control_runs: nnU-Net on the same labels.
        all_labels: nnU-Net on every label; nan: not measured.
    """

    data: str
    dimensions: int
    steps: int
    page: str
    trainer: str
    runs: int
    dice: float
    spread: float
    control: float
    control_runs: int
    all_labels: float

    @property
    def gain(self) -> float:
        return self.dice - self.control

    @property
    def counts(self) -> bool:
        """Whether there are several runs and the gain is larger than they differ by."""
        return self.runs > 1 and self.gain > self.spread


@cache
def evidence() -> tuple[Measured, ...]:
    """All rows, of each comparison the best trainer first."""
    return tuple(Measured(**row) for row in pd.read_csv(FILE).to_dict("records"))
