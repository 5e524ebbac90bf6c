"""Steps that train: nnUNetv2_train, then the evaluation of the fold's validation cases."""

from __future__ import annotations

import os

from nnunet_ssl.evaluation.benchmark.checks import REFERENCES
from nnunet_ssl.evaluation.benchmark.job_run import StageFailed
from nnunet_ssl.evaluation.benchmark.results import fold_folder, is_trained, model_folder, training_figures
from nnunet_ssl.evaluation.benchmark.scores import ToEvaluate
from nnunet_ssl.selftrain.models import Training
from nnunet_ssl.selftrain.step_run import StepRun
from nnunet_ssl.selftrain.steps import FINETUNE, TRAIN, last_training

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")  # from which --c goes on


def train(step_run: StepRun) -> None:
    """Train to the end, with --c where a checkpoint is there, and evaluate."""
    step, run = step_run.job, step_run.run_of
    training = step_run.keys.training(step)
    if not is_trained(training):
        training.write_plans()
        lock = os.path.join(model_folder(training), f".fold_{training.fold}.lock")
        step_run.command("train", command_of(training, step_run.device), lock, measured=True)
    if not is_trained(training):
        step_run.note(f"Training ended without an error but left no result in {fold_folder(training)}")
        raise StageFailed
    figures = training_figures(training)
    step_run.record.steps, step_run.record.seconds_per_step = figures.steps, figures.seconds_per_step
    if not (step.kind == TRAIN and last_training(run, step.round) == FINETUNE):  # its fine-tuning is evaluated
        step_run.evaluate(_evaluation(step_run, training))


def command_of(training: Training, device: str) -> list[str]:
    """nnUNetv2_train, that begins the training, or goes on from its last checkpoint."""
    words = ["nnUNetv2_train", training.dataset, training.configuration, str(training.fold), "-p", training.plans]
    words += ["-tr", training.trainer, "-device", device]
    begun = any(os.path.isfile(os.path.join(fold_folder(training), name)) for name in CHECKPOINTS)
    if training.before is not None and not begun:  # nnU-Net takes one of the two
        return [*words, "-pretrained_weights", training.before.checkpoint_file]
    return [*words, "--c"]


def _evaluation(step_run: StepRun, training: Training) -> ToEvaluate:
    """Against the dataset's own labels, whichever dataset was trained on."""
    base = step_run.run_of.base
    return ToEvaluate(
        os.path.join(base, REFERENCES),
        os.path.join(fold_folder(training), "validation"),
        step_run.folder,
        os.path.join(base, "dataset.json"),
        step_run.run_of.folds[training.fold].val,
    )
