"""What a reader of the tables has to know."""

from __future__ import annotations

import pandas as pd

from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.warnings import warnings

DEFINITIONS = [
    ("round", "0: trained on the labelled cases alone; k: on these and the pseudo-labels that round k - 1 has made"),
    ("mean", "over the fold's validation cases and the classes, of the model that all rounds have: same seed and fold"),
    ("all models", "the mean of the means of every model of the round, teachers included"),
    ("difference", "to round 0, paired by case; interval by bootstrap over cases, or subjects where they are known"),
    ("control, as long", "the labelled cases alone, for as many epochs as all rounds together"),
    ("trainings, hours", "all that was needed up to this round, predictions and preprocessing included in the hours"),
    ("agreement", "mean Dice over all pairs of teachers; of a case the lowest of its classes, as all scores"),
    ("confidence", "share of the voxels labelled as a class whose mean probability is above 0.9"),
    ("entropy", "1 - mean entropy of the voxels labelled as a class, as a share of the highest possible one"),
    ("stability", "Dice between this round's label and that of the round before"),
    ("differing", "voxels on which teachers differ, as a share of those that any of them labels as foreground"),
    ("unusual volume", "below a third of the smallest or above three times the largest one in the labelled cases"),
]


def notes_on_rounds(run: Run) -> list[str]:
    """Below the table of rounds."""
    found = list(warnings(run.settings))
    if run.settings.rounds > 1:
        found.append("All rounds are shown; the last one is the result. To choose another one by this table is model "
                     "selection on the validation cases.")  # fmt: skip
    seeds = len(run.members(0))
    if seeds > 1:
        found.append(f"Round 0 has {seeds} models; their spread tells how much a difference means.")
    return found


def notes_on_selection(selection: pd.DataFrame) -> list[str]:
    """Below the table of a selection."""
    kept = selection["kept"].astype(bool)
    found = [f"{int(kept.sum())} of {len(selection)} cases are kept."]
    reasons = selection.loc[~kept, "reason"].str.replace(r"\d+\.\d+ is", "is", regex=True).value_counts()
    found += [f"{count} dropped: {reason}." for reason, count in reasons.items()]
    if (selection["ignored"] > 0).any():
        share = 100 * selection.loc[kept, "ignored"].mean()
        found.append(f"{share:.2f} % of the voxels of kept cases have the ignore label.")
    return found
