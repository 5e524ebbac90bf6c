"""The steps of a self-training, in the order in which they can be done, each a job of its own."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.settings import JOINT

TRAIN, FINETUNE, PREDICT, ENSEMBLE = "train", "finetune", "predict", "ensemble"
SELECT, DATASET, PREPROCESS, CONTROL = "select", "dataset", "preprocess", "control"
TRAININGS = (TRAIN, FINETUNE, CONTROL)


@dataclass(frozen=True)
class Step:
    """One job.

    Attributes:
        kind: one of the words above.
        round: to which it belongs; 0 are the first teachers.
        member: which training, or which teacher predicts.
        after: ids of the steps that must be complete before.
        epochs: length of its training, None where it trains nothing.
    """

    kind: str
    round: int
    member: int | None = None
    after: tuple[str, ...] = ()
    epochs: int | None = None

    @property
    def id(self) -> str:
        return step_id(self.kind, self.round, self.member)


def step_id(kind: str, round_number: int, member: int | None = None) -> str:
    """Name of the step's folder in OUT/jobs."""
    return f"round{round_number}__{kind}" + ("" if member is None else f"__{member}")


def steps_of(run: Run, epochs: dict[str, int]) -> list[Step]:
    """All steps of a run.

    Args:
        run: with its settings.
        epochs: length of a training of each kind: TRAIN (first teachers), "student", FINETUNE, CONTROL.
    """
    settings, steps = run.settings, []
    for k in range(settings.rounds + 1):
        before: tuple[str, ...] = ()
        if k > 0:
            steps += _from_predictions_to_data(run, k)
            before = (step_id(PREPROCESS, k),)
        length = epochs[TRAIN if k == 0 else "student"]
        earlier = last_training(run, k - 1) if k > 0 and settings.start == "previous" else None
        for member in run.members(k):
            more = () if earlier is None else (step_id(earlier, k - 1, member),)
            steps.append(Step(TRAIN, k, member, (*before, *more), length))
        if k > 0 and settings.mode != JOINT:
            steps += [
                Step(FINETUNE, k, member, (step_id(TRAIN, k, member),), epochs[FINETUNE]) for member in run.members(k)
            ]
    if settings.rounds > 0:
        steps.append(Step(CONTROL, settings.rounds, None, (), epochs[CONTROL]))
    return steps


def last_training(run: Run, round_number: int) -> str:
    """Kind of the training that makes a round's models: fine-tuning where students are fine-tuned."""
    return TRAIN if round_number == 0 or run.settings.mode == JOINT else FINETUNE


def _from_predictions_to_data(run: Run, k: int) -> list[Step]:
    """What lies between the teachers of round k - 1 and the students of round k."""
    settings, made_by = run.settings, last_training(run, k - 1)
    trainings = run.members(k - 1)
    steps = []
    for teacher in range(settings.n_teachers):
        member = teacher if teacher in trainings else trainings[0]  # checkpoints are of one training
        steps.append(Step(PREDICT, k, teacher, (step_id(made_by, k - 1, member),)))
    predicted = tuple(step.id for step in steps)
    if settings.needs_probabilities:
        steps.append(Step(ENSEMBLE, k, None, predicted))
        predicted = (*predicted, step_id(ENSEMBLE, k))
    steps.append(Step(SELECT, k, None, predicted))
    steps.append(Step(DATASET, k, None, (step_id(SELECT, k),)))
    steps.append(Step(PREPROCESS, k, None, (step_id(DATASET, k),)))
    return steps
