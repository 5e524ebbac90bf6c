"""The trainings of a run as nnU-Net knows them: dataset, plans, fold, checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_ssl.data.splits import read_splits, split_to_json
from nnunet_ssl.evaluation.benchmark.expand import HASH_LENGTH, copy_name, training_hash
from nnunet_ssl.evaluation.benchmark.results import CHECKPOINT, fold_folder
from nnunet_ssl.planning.plans_copy import make_plans_copy, write_plans_copy
from nnunet_ssl.selftrain.run import LABELED_SPLIT, Run
from nnunet_ssl.selftrain.settings import CHECKPOINTS, JOINT, SelfTraining
from nnunet_ssl.selftrain.steps import CONTROL, FINETUNE, TRAIN, Step, last_training
from nnunet_ssl.system.hashes import hash_of
from nnunet_ssl.trainers import CONTROL as TRAINER
from nnunet_ssl.trainers.supervised import nnUNetTrainerSupervised
from nnunet_ssl.training.configured import kept_checkpoint
from nnunet_ssl.training.recipe import NNUNET_EPOCHS

FIRST_CHECKPOINT = 0.6  # of the training: later ones of a run are of similar quality, earlier ones are not
SHARE_OF_EPOCHS, SHARE_OF_RATE = 0.2, 0.1  # of fine-tuning, compared with training
NNUNET_RATE = 0.01


@dataclass(frozen=True)
class Training:
    """One call of nnUNetv2_train.

    Attributes:
        dataset, configuration, plans, trainer, fold: what it is called with.
        source: plans of which its plans are a copy.
        split: of the copy, or None.
        settings: "training" of the copy.
        before: the training whose weights it begins with, or None.
        checkpoint: which of its checkpoints predicts.
    """

    dataset: str
    configuration: str
    plans: str
    fold: int
    source: str
    split: str | None
    settings: Mapping[str, Any]
    before: Training | None = None
    checkpoint: str = CHECKPOINT
    trainer: str = TRAINER

    @property
    def identity(self) -> list[Any]:
        """What tells it from any other training, wherever nnU-Net's folders are."""
        earlier = None if self.before is None else self.before.identity
        return [self.dataset, self.configuration, self.plans, self.fold, self.checkpoint, earlier]

    @property
    def checkpoint_file(self) -> str:
        return os.path.join(fold_folder(self), self.checkpoint)

    def write_plans(self) -> None:
        """The plans copy, where it is not there yet."""
        write_plans_copy(
            self.dataset, plans_identifier=self.source, name=self.plans, split=self.split, training=self.settings
        )


def training_of(run: Run, step: Step, dataset_key: str | None, before: Training | None) -> Training:
    """The training of a step.

    Args:
        dataset_key: hash of what D_k was made from, for trainings of students; another one leads to plans of another
            name, so that nothing trained on former pseudo-labels is continued.
        before: the training whose weights it begins with, or None.
    """
    values = dict(run.settings.training)
    if step.kind == CONTROL:
        return _on_labels(run, run.main_member, {**values, "num_epochs": step.epochs}, student=False)
    assert step.member is not None
    if step.kind == FINETUNE:
        values |= {"num_epochs": step.epochs, "initial_lr": fine_rate(run.settings.training)}
    values |= _kept(run, step)
    if step.kind == FINETUNE or step.round == 0:
        return _on_labels(run, step.member, values, student=step.kind == FINETUNE, before=before)
    assert dataset_key is not None
    settings, seed = run.settings, run.seed_of(step.member)
    values["seed"] = seed
    digest = hash_of([{**run.student_plans, "plans_name": ""}, values, dataset_key, before and before.identity])
    return Training(
        run.student_dataset(step.round),
        settings.configuration,
        f"{settings.student_plans}_s{seed}_{digest[:HASH_LENGTH]}",
        run.fold_of(step.member),
        settings.student_plans,
        None,
        values,
        before,
    )


def _on_labels(
    run: Run, member: int, values: Mapping[str, Any], student: bool, before: Training | None = None
) -> Training:
    """On the labelled cases of the dataset alone, as a benchmark's control trains, whose result is shared."""
    settings = run.settings
    source, content = (settings.student_plans, run.student_plans) if student else (settings.plans, run.plans)
    fold, seed = run.fold_of(member), run.seed_of(member)
    training = {**values, "seed": seed}
    plans = make_plans_copy(content, source, settings.split, training, {})
    digest = training_hash(plans, _cases(run, fold))
    name = copy_name(source, settings.split or LABELED_SPLIT, seed, digest)
    if before is not None:
        name = f"{source}_fine_s{seed}_{hash_of([digest, before.identity])[:HASH_LENGTH]}"
    return Training(settings.dataset, settings.configuration, name, fold, source, settings.split, training, before)


def _cases(run: Run, fold: int) -> Any:
    """What decides about the cases of a fold, as plain Python."""
    split = run.settings.split
    if split is not None:
        return split_to_json(read_splits(run.base).splits[split])
    return {"labeled": run.folds[fold].labeled, "val": run.folds[fold].val}


def teacher_checkpoints(run: Run, epochs: int) -> list[str]:
    """The checkpoint of each teacher: the final one, or several of one training, the last of them the final one."""
    settings = run.settings
    if settings.teachers != CHECKPOINTS:
        return [CHECKPOINT] * settings.n_teachers
    return [*map(kept_checkpoint, _kept_epochs(settings.n_teachers, epochs)), CHECKPOINT]


def _kept_epochs(teachers: int, epochs: int) -> list[int]:
    """Evenly from 60 % of the training on, without its end."""
    if teachers < 2:
        return []
    return [max(1, round(share * epochs)) for share in np.linspace(FIRST_CHECKPOINT, 1.0, teachers)[:-1]]


def _kept(run: Run, step: Step) -> dict[str, Any]:
    """The setting that keeps the checkpoints which become teachers."""
    teaches = step.round < run.settings.rounds and step.kind == last_training(run, step.round)
    if run.settings.teachers != CHECKPOINTS or not teaches or step.epochs is None:
        return {}
    kept = _kept_epochs(run.settings.n_teachers, step.epochs)
    return {"kept_epochs": kept} if kept else {}


def lengths(run: Run) -> dict[str, int]:
    """Epochs of each kind of training, see ``steps_of``."""
    plans = make_plans_copy(run.plans, run.settings.plans, None, run.settings.training, {})
    students = make_plans_copy(run.student_plans, run.settings.student_plans, None, run.settings.training, {})
    first, student = (nnUNetTrainerSupervised.planned_epochs(p) or NNUNET_EPOCHS for p in (plans, students))
    return {
        TRAIN: first,
        "student": student,
        FINETUNE: fine_epochs(student),
        CONTROL: (run.settings.rounds + 1) * first,
    }


def fine_epochs(epochs: int) -> int:
    """A fifth of a training's, at least 1."""
    return max(1, round(SHARE_OF_EPOCHS * epochs))


def fine_rate(training: Mapping[str, Any]) -> float:
    """A tenth of the rate that the settings lead to."""
    rate = training.get("initial_lr")
    if rate is None:
        rate = nnUNetTrainerSupervised.recipe.optimization_for(training.get("optimizer")).rate or NNUNET_RATE
    return float(rate) * SHARE_OF_RATE


def kept_epochs_problem(settings: SelfTraining) -> str:
    """Why a training of this length has not as many different checkpoints; empty if it has."""
    epochs = settings.training.get("num_epochs") or NNUNET_EPOCHS
    if not isinstance(epochs, int):
        return ""  # told with the other settings of a training
    lengths = [epochs]
    if settings.rounds > 1 and settings.mode != JOINT:  # fine-tuned students teach the next round
        lengths.append(fine_epochs(epochs))
    for length in lengths:
        if len({*_kept_epochs(settings.n_teachers, length), length}) < settings.n_teachers:
            return f"--teachers checkpoints: {length} epochs have no {settings.n_teachers} checkpoints from 60 % on"
    return ""
