"""The results of the trainings of a run, and what they cost."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pandas as pd

from nnunet_ssl.evaluation.benchmark.jobs import Record, job_folder, read_record
from nnunet_ssl.evaluation.scoring.results import read_rows
from nnunet_ssl.selftrain.keys import Keys
from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.steps import CONTROL, TRAININGS, Step, last_training


@dataclass(frozen=True)
class Result:
    """One model.

    Attributes:
        step: its training, or its fine-tuning.
        record: of that step.
        rows: evaluation.csv of the validation cases, with the columns fold and seed.
    """

    step: Step
    record: Record
    rows: pd.DataFrame


def results_of(run: Run, keys: Keys) -> list[Result]:
    """Every model that is trained and evaluated, in the order of the rounds, the long control last."""
    found = []
    for step in keys.steps.values():
        judged = step.kind == CONTROL or step.kind == last_training(run, step.round)
        if step.kind not in TRAININGS or not judged or not keys.is_complete(step):
            continue
        record = read_record(run.output, step.id)
        assert record is not None  # the step is complete
        member = run.main_member if step.member is None else step.member
        rows = read_rows(os.path.join(job_folder(run.output, step.id), "evaluation.csv"))
        found.append(Result(step, record, rows.assign(fold=run.fold_of(member), seed=run.seed_of(member))))
    return found


def seconds_until(run: Run, keys: Keys, round_number: int) -> float:
    """What was spent on everything that a round's models needed: all rounds up to it."""
    records = (
        read_record(run.output, step.id)
        for step in keys.steps.values()
        if step.kind != CONTROL and step.round <= round_number
    )
    return sum(record.seconds for record in records if record is not None)


def trainings_until(run: Run, keys: Keys, round_number: int) -> int:
    """Number of trainings, fine-tuning not counted, that a round's models needed."""
    return sum(len(run.members(number)) for number in range(round_number + 1))
