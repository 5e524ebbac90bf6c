"""What each step was made from, as one hash: with another one it has to be done again, and so has all that follows.

The hash of a student's data holds that of selection.json as it lies there: a selection that a person has changed, or
that was made anew, leads to other data and to trainings of another name.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property
from typing import Any

from nnunet_ssl.data.unlabeled_store import unlabeled_identifiers
from nnunet_ssl.evaluation.benchmark.jobs import COMPLETE, job_folder, read_record
from nnunet_ssl.selftrain.models import Training, lengths, teacher_checkpoints, training_of
from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.settings import PREVIOUS, STABILITY
from nnunet_ssl.selftrain.steps import (
    CONTROL,
    DATASET,
    ENSEMBLE,
    FINETUNE,
    PREDICT,
    PREPROCESS,
    SELECT,
    TRAIN,
    TRAININGS,
    Step,
    last_training,
    step_id,
    steps_of,
)
from nnunet_ssl.system.hashes import hash_of, hash_of_file

OF_SELECTION = ("select", "threshold", "keep_fraction", "min_cases", "keep_empty", "voxels", "voxel_confidence",
                "monitor_withheld_labels")  # fmt: skip
SELECTION_TABLE = "selection.csv"


class Keys:
    """The state of a run at this moment. Make a new one after something has changed."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._keys: dict[str, str | None] = {}

    @cached_property
    def steps(self) -> dict[str, Step]:
        return {step.id: step for step in steps_of(self.run, lengths(self.run))}

    def key(self, step: Step) -> str | None:
        """None as long as a selection is missing on which the step depends."""
        if step.id not in self._keys:
            self._keys[step.id] = self._key(step)
        return self._keys[step.id]

    def _key(self, step: Step) -> str | None:
        settings, run = self.run.settings, self.run
        before = [self.key(self.steps[earlier]) for earlier in step.after]
        own: Any = None
        if step.kind in TRAININGS:
            if step.kind != CONTROL and None in before:
                return None
            own = self.training(step).identity
        elif step.kind == PREDICT:
            if None in before:
                return None
            own = [run.pool_hash, self.teacher(step.round, step.member or 0).identity]
        elif step.kind == SELECT:
            own = [getattr(settings, name) for name in OF_SELECTION]
            if settings.select == STABILITY and step.round > 1:
                before.append(self.key(self.steps[step_id(SELECT, step.round - 1)]))
        elif step.kind == DATASET:
            selection = run.selection_file(step.round)
            if not os.path.isfile(selection):
                return None
            cases = {number: [fold.labeled, fold.val] for number, fold in run.folds.items()}
            own = [hash_of_file(selection), settings.mode, settings.labeled_share, settings.student_plans, cases]
            if settings.student_plans != settings.plans:  # else the first teachers' trainings tell
                own.append(run.student_plans)
        return None if None in before else hash_of([step.id, own, before])

    # ---- trainings

    def training(self, step: Step) -> Training:
        """What a step trains; the selection on which it depends must be there."""
        data, before = None, None
        if step.kind in (TRAIN, FINETUNE) and step.round > 0:
            data = self.key(self.steps[step_id(PREPROCESS, step.round)])
        if step.kind == FINETUNE:
            before = self.training(self.steps[step_id(TRAIN, step.round, step.member)])
        elif step.kind == TRAIN and step.round > 0 and self.run.settings.start == PREVIOUS:
            before = self.model(step.round - 1, step.member or 0)
        return training_of(self.run, step, data, before)

    def model(self, round_number: int, member: int) -> Training:
        """The training that makes a round's model."""
        return self.training(self.steps[step_id(last_training(self.run, round_number), round_number, member)])

    def teacher(self, round_number: int, teacher: int) -> Training:
        """The model that labels the pool for a round: of the round before."""
        trainings = self.run.members(round_number - 1)
        member = teacher if teacher in trainings else trainings[0]
        step = self.steps[step_id(last_training(self.run, round_number - 1), round_number - 1, member)]
        checkpoint = teacher_checkpoints(self.run, step.epochs or 1)[teacher]
        return replace(self.training(step), checkpoint=checkpoint)

    # ---- what is done

    def is_complete(self, step: Step) -> bool:
        """Whether the step was finished, from what it would be made from now, and its result is there.

        Models are not asked for: checkpoints may be deleted once nothing is to be predicted with them.
        """
        key = self.key(step)
        record = read_record(self.run.output, step.id)
        if key is None or record is None or record.state != COMPLETE or record.settings_sha256 != key:
            return False
        return not self.missing(step)

    def missing(self, step: Step) -> list[str]:
        """Files of the result that are not there."""
        run, k = self.run, step.round
        if step.kind in TRAININGS:
            folder = job_folder(run.output, step.id)
            wanted = [os.path.join(folder, f"evaluation.{ending}") for ending in ("json", "csv")]
            if step.kind == TRAIN and last_training(run, k) == FINETUNE:
                wanted = []  # only what comes of it is judged
        elif step.kind == PREDICT:
            folder = run.teacher_folder(k, step.member or 0)
            endings = (run.ending, ".npz") if run.settings.needs_probabilities else (run.ending,)
            wanted = [os.path.join(folder, case + ending) for case in run.pool for ending in endings]
        elif step.kind == ENSEMBLE:
            wanted = [os.path.join(run.ensemble_folder(k), case + e) for case in run.pool for e in (run.ending, ".npz")]
        elif step.kind == SELECT:
            wanted = [run.selection_file(k), os.path.join(run.round_folder(k), SELECTION_TABLE)]
        elif step.kind == DATASET:
            base = run.student_base(k)
            names = ("dataset.json", "splits_final.json", f"{run.settings.student_plans}.json")
            wanted = [os.path.join(run.student_raw(k), "dataset.json"), *(os.path.join(base, name) for name in names)]
        else:
            return [] if unlabeled_identifiers(preprocessed_folder(run, k)) else [preprocessed_folder(run, k)]
        return [path for path in wanted if not os.path.isfile(path)]


def preprocessed_folder(run: Run, round_number: int) -> str:
    """Where nnU-Net puts the cases of D_k."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    configuration = PlansManager(run.student_plans).get_configuration(run.settings.configuration)
    return os.path.join(run.student_base(round_number), configuration.data_identifier)
