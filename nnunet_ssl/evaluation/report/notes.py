"""What stands below a table so that nobody concludes more from it than it holds."""

from __future__ import annotations

import json

import pandas as pd

from nnunet_ssl.evaluation.report.aggregate import EVALUATION
from nnunet_ssl.evaluation.report.load import TEST, Run
from nnunet_ssl.evaluation.report.quantities import QUANTITIES
from nnunet_ssl.evaluation.report.statistics import ALPHA, smallest_p
from nnunet_ssl.evaluation.report.subjects import Subjects
from nnunet_ssl.evaluation.report.tables import FOREGROUND, Table
from nnunet_ssl.evaluation.report.text_tables import BEST


def notes_of(table: Table, control: str, subjects: Subjects) -> list[str]:
    """Sentences about one table. ``control``: trainer with which the others are compared."""
    notes = []
    if not table.has_control:
        notes.append(
            f"No training run of the control, {control}, has finished, so nothing is compared: there are no "
            "differences, intervals or tests."
        )
    elif len(table.trainers) > 1:
        notes += [_about_units(table, subjects), *_about_pairs(table, control), *_about_noise(table)]
    return [*notes, *_about_checkpoints(table), *_about_matching(table)]


def _about_units(table: Table, subjects: Subjects) -> str:
    """What the intervals and tests count as one."""
    cases = set(table.values["case"])
    if cases & subjects.groups.keys():
        owners = {subjects.groups.get(case, f"case {case}") for case in cases}
        return f"Intervals and tests are over subjects, not cases: {len(owners)} subjects, {len(cases)} cases."
    unknown = "splits_ssl.json does not name the subjects of these cases"
    reason = unknown if subjects.groups else subjects.why_none
    return f"Intervals and tests treat every case as a subject of its own, because {reason}."


def _about_noise(table: Table) -> list[str]:
    notes, values = [], table.values
    units = table.numbers[table.numbers["class"] == FOREGROUND]["compared_units"].min()
    if pd.notna(units) and smallest_p(units) >= ALPHA:
        pairs = "1 pair" if units == 1 else f"{units:.0f} pairs"
        notes.append(
            f"With {pairs}, Wilcoxon's test cannot give a p below {smallest_p(units):.3g}, whatever the values: p "
            "allows no conclusion here."
        )
    if len(values[["fold", "seed"]].drop_duplicates()) == 1:
        notes.append(
            "There is one training run per trainer (one fold, one seed): interval and p describe these trained "
            "networks. Another seed can reverse a small difference."
        )
    elif values["seed"].nunique() == 1:
        notes.append("There is one seed: only the differences between folds show how much training runs vary.")
    if table.place.scope == TEST and values["fold"].nunique() > 1:
        notes.append("Every test case was predicted once per fold; its value is the mean over the folds.")
    if any(not QUANTITIES[m].overlap for m in table.metrics):
        notes.append("Distances: lower is better, and a negative difference is an improvement.")
    return notes


def _about_pairs(table: Table, control: str) -> list[str]:
    evaluations = {name: set(map(tuple, v[EVALUATION].to_numpy())) for name, v in table.values.groupby("trainer")}
    theirs = evaluations[control]
    return [
        f"{trainer}: compared on the {len(mine & theirs)} evaluations (case, fold, seed) that the control has too, out "
        f"of its own {len(mine)} and the control's {len(theirs)}. The difference shown is therefore not that of the "
        "two means."
        for trainer in table.trainers
        if (mine := evaluations[trainer]) != theirs
    ]


def _about_checkpoints(table: Table) -> list[str]:
    """Networks that were chosen by their validation cases, as the settings of their plans ask for."""
    if not table.chosen:
        return []
    own = " The cases of this table are those, so that its numbers are too good." if table.place.scope != TEST else ""
    return [
        f"{BEST}: of {', '.join(table.chosen)} the checkpoint that did best on the validation cases predicted, not the "
        f"last one.{own}"
    ]


def _about_matching(table: Table) -> list[str]:
    """Differences between the training runs that make a comparison unfair or a time meaningless."""
    settings = {_training_settings(run) for run in table.done}
    steps = {json.dumps(run.record.get("steps")) for run in table.done}
    labels = {(run.fold, run.labeled) for run in table.done}  # folds may differ, trainers within a fold may not
    unequal = {f"fold {fold}: {n}" for fold, n in labels if sum(other == fold for other, _ in labels) > 1}
    found = {
        "training settings": settings if len(settings) > 1 else set(),
        "number of steps": steps if len(steps) > 1 else set(),
        "number of labelled cases in a fold": unequal,
    }
    notes = [
        f"WARNING: the training runs differ in {what} ({'; '.join(sorted(kinds))}), so the comparison is not fair."
        for what, kinds in found.items()
        if kinds
    ]
    devices = sorted({str(run.record["device"]) for run in table.done if run.record.get("device")})
    if len(devices) > 1:
        notes.append(f"The devices of the training runs differ ({', '.join(devices)}): do not compare times or memory.")
    return notes


def _training_settings(run: Run) -> str:
    """Those of the plans, without the seed."""
    settings = run.record.get("settings")
    training = (settings.get("training") or {}) if isinstance(settings, dict) else {}
    return json.dumps({key: value for key, value in sorted(training.items()) if key != "seed"})
