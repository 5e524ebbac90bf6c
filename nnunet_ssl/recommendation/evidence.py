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
        classes: number of foreground classes.
        trainer: its name.
        runs: number of its trainings.
        dice, lowest, highest: mean, worst and best run, as fractions.
        control, control_lowest, control_highest, control_runs: the same of nnU-Net on the same labels.
        all_labels: mean of nnU-Net on every label; nan: not measured.
    """

    data: str
    dimensions: int
    steps: int
    page: str
    classes: int
    trainer: str
    runs: int
    dice: float
    lowest: float
    highest: float
    control: float
    control_lowest: float
    control_highest: float
    control_runs: int
    all_labels: float

    @property
    def gain(self) -> float:
        """Difference of the means."""
        return self.dice - self.control

    @property
    def spread(self) -> float:
        """Largest difference between two runs."""
        return self.highest - self.lowest

    @property
    def counts(self) -> bool:
        """Whether the gain counts: there are several runs, and the worst of them is better than nnU-Net's best."""
        return self.runs > 1 and self.lowest > self.control_highest


@cache
def evidence() -> tuple[Measured, ...]:
    """All rows, of each comparison the best trainer first."""
    return tuple(Measured(**row) for row in pd.read_csv(FILE).to_dict("records"))
