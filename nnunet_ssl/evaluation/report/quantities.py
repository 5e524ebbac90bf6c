"""The metrics as a reader sees them: name, unit, and which direction is better."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nnunet_ssl.evaluation.scoring.definitions import DISTANCES, OVERLAPS, TITLES

MINUS, MISSING = "\u2212", "\u2013"  # a real minus sign; the dash of an empty cell


@dataclass(frozen=True)
class Quantity:
    """How one column of evaluation.csv is shown.

    Attributes:
        title: heading.
        overlap: an overlap in [0, 1], shown in percent, where higher is better; else a distance, where lower is.
        decimals: shown.
    """

    title: str
    overlap: bool
    decimals: int

    def unit(self, of_distances: str) -> str:
        """Unit of what is shown; distances are in "mm" or "voxel"."""
        return "%" if self.overlap else of_distances

    def shown(self, value: float) -> float:
        """The value in the unit that is shown."""
        return 100 * value if self.overlap else value

    def text(self, value: float | None, signed: bool = False) -> str:
        """The number in the unit that is shown; a dash where there is none."""
        if value is None or math.isnan(value):
            return MISSING
        return number(self.shown(value), self.decimals, signed)


def short_name(trainer: str) -> str:
    """Without the nnUNetTrainer in front."""
    return trainer.removeprefix("nnUNetTrainer") or trainer


QUANTITIES = {
    **{key: Quantity(TITLES[key], True, 1) for key in OVERLAPS},
    **{key: Quantity(TITLES[key], False, 2) for key in DISTANCES},
}


def number(value: float, decimals: int, signed: bool = False) -> str:
    """With a real minus sign, and without the sign of a negative number that is shown as zero."""
    text = f"{value:+.{decimals}f}" if signed else f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS)
