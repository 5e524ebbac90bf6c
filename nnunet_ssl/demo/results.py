"""The numbers of the demo: read from nnU-Net's summaries, shown as a table, kept as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_ssl.data.text_files import read_json


@dataclass(frozen=True)
class Scores:
    """Dice of one trainer on the test cases, NaN where an organ is absent from reference and prediction.

    Attributes:
        trainer: its name.
        organs: their names, in the order of the columns.
        cases: case ids, in the order of the rows.
        dice: (cases, organs).
        seconds: duration of the training command.
    """

    trainer: str
    organs: tuple[str, ...]
    cases: tuple[str, ...]
    dice: np.ndarray
    seconds: float

    @property
    def short_name(self) -> str:
        return self.trainer.removeprefix("nnUNetTrainer")

    @property
    def per_organ(self) -> np.ndarray:
        return np.nanmean(self.dice, axis=0)

    @property
    def mean(self) -> float:
        """Mean over organs of the mean over cases."""
        return float(self.per_organ.mean())


def read_scores(trainer: str, predictions: Path, seconds: float) -> Scores:
    """From the summary.json that nnUNetv2_evaluate_folder left beside the predictions.

    Raises:
        FileNotFoundError, KeyError: not evaluated, or evaluated for other labels.
    """
    labels = read_json(predictions / "dataset.json", dict)["labels"]
    organs = {name: str(value) for name, value in labels.items() if name != "background"}
    per_case = read_json(predictions / "summary.json", dict)["metric_per_case"]
    by_case = {Path(c["prediction_file"]).name.removesuffix(".nii.gz"): c["metrics"] for c in per_case}
    cases = tuple(sorted(by_case))
    dice = np.array([[by_case[case][value]["Dice"] for value in organs.values()] for case in cases], dtype=float)
    return Scores(trainer, tuple(organs), cases, dice, seconds)


def table(control: Scores, semi: Scores) -> str:
    """Dice per organ and its mean, the difference, and the time each training took; aligned for a terminal."""
    width = max(len(control.trainer), len(semi.trainer))
    lines = [f"{'Dice on the test cases':<24}{control.trainer:>{width}}  {semi.trainer:>{width}}  difference"]
    rows = [*zip(control.organs, control.per_organ, semi.per_organ, strict=True), ("mean", control.mean, semi.mean)]
    for name, ours, theirs in rows:
        if name == "mean":
            lines.append("-" * len(lines[0]))
        lines.append(f"{name:<24}{ours:>{width}.3f}  {theirs:>{width}.3f}  {theirs - ours:>+10.3f}")
    times = [f"{s.seconds:.0f} s" for s in (control, semi)]
    lines.append(f"{'training took':<24}{times[0]:>{width}}  {times[1]:>{width}}")
    return "\n".join(lines)


def conclusion(control: Scores, semi: Scores) -> str:
    """One honest sentence: in which direction, and in how many of the test cases."""
    better = int((np.nanmean(semi.dice, axis=1) > np.nanmean(control.dice, axis=1)).sum())
    difference = semi.mean - control.mean
    verdict = f"{abs(difference):.3f} {'higher' if difference > 0 else 'lower'}"
    if f"{abs(difference):.3f}" == "0.000":  # a difference that the table shows as none
        verdict = "the same to three decimals"
    return (
        f"With the unlabelled images the mean Dice is {verdict}; it is higher in {better} of "
        f"{len(semi.cases)} test cases. One run on {len(semi.cases)} synthetic cases: an example, no evidence."
    )


def as_json(control: Scores, semi: Scores) -> dict[str, Any]:
    """Everything the table shows and the values per case, as plain Python; None where Dice is undefined."""
    return {
        scores.trainer: {
            "mean_dice": _number(scores.mean),
            "dice": {o: _number(d) for o, d in zip(scores.organs, scores.per_organ, strict=True)},
            "cases": {
                case: {o: _number(d) for o, d in zip(scores.organs, row, strict=True)}
                for case, row in zip(scores.cases, scores.dice, strict=True)
            },
            "training_seconds": round(scores.seconds, 1),
        }
        for scores in (control, semi)
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)
