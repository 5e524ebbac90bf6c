"""What stands below a table so that nobody concludes more from it than it holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from nnunet_ssl.evaluation.report.aggregate import EVALUATION
from nnunet_ssl.evaluation.report.load import TEST, Job
from nnunet_ssl.evaluation.report.quantities import QUANTITIES
from nnunet_ssl.evaluation.report.statistics import ALPHA, smallest_p

if TYPE_CHECKING:
    from nnunet_ssl.evaluation.report.tables import Table


def notes_of(
    table: Table, values: pd.DataFrame, jobs: Sequence[Job], control: str, subjects: tuple[dict[str, str], str]
) -> list[str]:
    """Sentences about one table.

    Args:
        values: all rows of the table, see :class:`nnunet_ssl.evaluation.report.load.Benchmark`.
        jobs: the complete ones.
        control: trainer with which the others are compared.
        subjects: case -> subject, and why it is empty.
    """
    notes = []
    if all(row.trainer != control for row in table.rows):
        notes.append(
            f"There is no finished training of the control {control} here, so that nothing is compared: "
            "no differences, intervals or tests."
        )
    elif len(table.rows) > 1:
        notes += _about_comparisons(table, values, control, subjects)
    notes += _about_matching(table, jobs)
    return notes


def _about_comparisons(
    table: Table, values: pd.DataFrame, control: str, subjects: tuple[dict[str, str], str]
) -> list[str]:
    notes = []
    groups, why_none = subjects
    cases = set(values["case"])
    if groups and cases & groups.keys():
        owners = {groups.get(case, f"case {case}") for case in cases}
        notes.append(f"Intervals and tests are over subjects, not cases: {len(owners)} subjects, {len(cases)} cases.")
    else:
        reason = "the subjects of these cases are not in splits_ssl.json" if groups else why_none
        notes.append(f"Intervals and tests treat every case as a subject of its own, since {reason}.")
    evaluations = {name: set(map(tuple, v[EVALUATION].to_numpy())) for name, v in values.groupby("trainer")}
    for row in table.rows:
        mine, others = evaluations[row.trainer], evaluations[control]
        if mine != others:
            notes.append(
                f"{row.trainer}: compared on {len(mine & others)} evaluations (case, fold, seed) that the control has "
                f"too, of its {len(mine)} and the control's {len(others)}; so the difference shown is not that of the "
                "two means."
            )
    units = [c.units for r in table.rows for k, cell in r.cells.items() if k[0] == "mean" and (c := cell.comparison)]
    if units and smallest_p(min(units)) >= ALPHA:
        smallest = smallest_p(min(units))
        notes.append(
            f"With {min(units)} {'pair' if min(units) == 1 else 'pairs'} Wilcoxon's test cannot give a p below "
            f"{smallest:.3g}, whatever the values: no conclusion from p here."
        )
    trainings = values[["fold", "seed"]].drop_duplicates()
    if len(trainings) == 1:
        notes.append(
            "One training per trainer (one fold, one seed): interval and p speak of these trained networks. "
            "Another seed can turn a small difference round."
        )
    elif values["seed"].nunique() == 1:
        notes.append("One seed: the noise of training is in the differences between folds only.")
    if table.place.scope == TEST and values["fold"].nunique() > 1:
        notes.append("Every test case was predicted once per fold; its value is the mean over the folds.")
    if any(not QUANTITIES[m].overlap for m in table.metrics):
        notes.append("Distances: lower is better, a negative difference is an improvement.")
    return notes


def _about_matching(table: Table, jobs: Sequence[Job]) -> list[str]:
    """Differences between the trainings that make a comparison unfair or a time meaningless."""
    notes = []
    for what, found in (
        ("training settings", {job.name: _training(job) for job in jobs}),
        ("number of steps", {job.name: json.dumps(job.record.get("steps")) for job in jobs}),
        ("labelled cases in a fold", {f"{j.fold} {j.name}": json.dumps([j.fold, j.labeled]) for j in jobs}),
    ):
        kinds = set(found.values())
        if what.startswith("labelled"):  # folds may differ, trainers within a fold may not
            kinds = {k for k in kinds if sum(json.loads(o)[0] == json.loads(k)[0] for o in kinds) > 1}
            differ = bool(kinds)
        else:
            differ = len(kinds) > 1
        if differ:
            notes.append(
                f"WARNING: the trainings differ in {what} ({'; '.join(sorted(kinds))}): not a fair comparison."
            )
    devices = sorted({str(job.record["device"]) for job in jobs if job.record.get("device")})
    if len(devices) > 1:
        notes.append(f"Trained on different devices ({', '.join(devices)}): do not compare times and memory.")
    return notes


def _training(job: Job) -> str:
    settings = job.record.get("settings") or {}
    training = settings.get("training") or {} if isinstance(settings, dict) else {}
    return json.dumps({k: v for k, v in sorted(training.items()) if k != "seed"})
