"""Steps that label the pool: nnUNetv2_predict by each teacher, nnUNetv2_ensemble of their probabilities."""

from __future__ import annotations

import os

from nnunet_ssl.data.file_damage import find_damage
from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.benchmark.jobs import job_folder
from nnunet_ssl.evaluation.benchmark.results import fold_folder
from nnunet_ssl.selftrain.pool import link_pool
from nnunet_ssl.selftrain.step_run import StepRun


def predict(step_run: StepRun) -> None:
    """The whole pool by one teacher; cases that an interrupted start has finished are kept.

    Raises:
        SemiSupervisedError: the teacher's checkpoint is gone.
    """
    run, step = step_run.run_of, step_run.job
    teacher = step_run.keys.teacher(step.round, step.member or 0)
    if not os.path.isfile(teacher.checkpoint_file):
        (job,) = step.after
        raise complain(
            f"{teacher.checkpoint_file} is needed for predictions, but is not there.",
            remedy=f"Bring it back; or delete {fold_folder(teacher)} and {job_folder(run.output, job)} and give the "
            "command again: the teacher is then trained anew.",
        )
    link_pool(run)
    target = run.teacher_folder(step.round, step.member or 0)
    _remove_damaged(target, run.ending)
    words = ["nnUNetv2_predict", "-i", run.pool_folder, "-o", target, "-d", teacher.dataset, "-f", str(teacher.fold)]
    words += ["-c", teacher.configuration, "-p", teacher.plans, "-tr", teacher.trainer, "-chk", teacher.checkpoint]
    words += ["-device", step_run.device, "--continue_prediction"]
    if run.settings.needs_probabilities:
        words.append("--save_probabilities")
    step_run.command("predict", words, step_run.lock("predict"))
    _all_there(step_run)


def ensemble(step_run: StepRun) -> None:
    """Mean of the teachers' probabilities, and the label that follows from it."""
    run, k = step_run.run_of, step_run.job.round
    folders = [run.teacher_folder(k, teacher) for teacher in range(run.settings.n_teachers)]
    words = ["nnUNetv2_ensemble", "-i", *folders, "-o", run.ensemble_folder(k), "--save_npz"]
    words += ["-np", step_run.processes]
    step_run.command("ensemble", words, step_run.lock("ensemble"))
    _all_there(step_run)


def _remove_damaged(folder: str, ending: str) -> None:
    """Half files of a start that was killed: nnU-Net would take them for finished ones. It writes the label last."""
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        path = os.path.join(folder, name)
        if name.endswith(ending) and find_damage(path):
            os.remove(path)


def _all_there(step_run: StepRun) -> None:
    missing = step_run.keys.missing(step_run.job)
    if missing:
        raise complain(
            "The command ended without an error, but these files are not there:",
            missing,
            f"See what it said in {step_run.log}, and give the command again once the cause is removed.",
        )
