"""One job from beginning to end: train, predict, evaluate, each only where it is not done yet, all of it on record."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from nnunet_ssl.evaluation.benchmark.job_run import JobRun, StageFailed
from nnunet_ssl.evaluation.benchmark.jobs import DESCRIPTION, Job, Record, test_set
from nnunet_ssl.evaluation.benchmark.results import CHECKPOINT, fold_folder, is_trained, model_folder, training_figures
from nnunet_ssl.evaluation.benchmark.scores import evaluation_of_test_set, evaluation_of_validation


def prediction_words(job: Job, images: str, target: str) -> list[str]:
    """The command that predicts a folder; plans with prediction settings name windows and checkpoint themselves."""
    model = ["-i", images, "-o", target, "-d", job.dataset, "-c", job.configuration, "-p", job.plans]
    model += ["-tr", job.trainer, "-f", str(job.fold)]
    if job.settings.get("prediction"):
        return ["nnunet_ssl", "predict-as-paper", *model]
    return ["nnUNetv2_predict", *model, "-chk", CHECKPOINT]


class Execution(JobRun):
    """A job of the benchmark while it runs in this process."""

    def work(self) -> None:
        self._train()
        self._predict()
        self._evaluate()

    def description(self) -> dict[str, Any]:
        job = self.job
        return {
            "job": {key: getattr(job, key) for key in DESCRIPTION},
            "settings": job.settings,
            "settings_sha256": job.settings_sha256,
            "test": test_set(job),
            "results_folder": fold_folder(job),
        }

    def forget(self) -> None:
        """What another job of this name has left in its folder; its training stays where nnU-Net put it."""
        shutil.rmtree(os.path.join(self.folder, "test"), ignore_errors=True)
        for path in (*Path(self.folder).glob("evaluation.*"), Path(self.log)):
            path.unlink(missing_ok=True)

    def take_over(self, old: Record) -> None:
        if old.test != test_set(self.job):
            shutil.rmtree(os.path.join(self.folder, "test"), ignore_errors=True)

    def _train(self) -> None:
        job = self.job
        if not is_trained(job):
            model = ("-p", job.plans, "-tr", job.trainer)
            # --c: continues where there is a checkpoint, starts where there is none
            words = ["nnUNetv2_train", job.dataset, job.configuration, str(job.fold), *model, "-device", self.device]
            shutil.rmtree(os.path.join(self.folder, "test"), ignore_errors=True)  # of another model
            self._nnunet("train", [*words, "--c"])
        if not is_trained(job):
            self.note(f"Training ended without an error but left no result in {fold_folder(job)}")
            raise StageFailed
        figures = training_figures(job)
        self.record.steps, self.record.seconds_per_step = figures.steps, figures.seconds_per_step

    def _predict(self) -> None:
        job = self.job
        if job.test_images is None:
            return
        target = os.path.join(self.folder, "test", "predictions")
        done = Path(f"{target}.done")
        if done.exists():
            return
        shutil.rmtree(target, ignore_errors=True)  # the last file of a cut off prediction may be half a file
        self._nnunet("predict", [*prediction_words(job, job.test_images, target), "-device", self.device])
        done.touch()

    def _evaluate(self) -> None:
        todo = [evaluation_of_validation(self.job, self.folder)]
        if self.job.test_images is not None:
            todo.append(evaluation_of_test_set(self.job, self.folder))
        for evaluation in todo:
            self.evaluate(evaluation)

    def _nnunet(self, name: str, words: list[str]) -> None:
        # beside the results, since two benchmarks may name the same training
        lock = os.path.join(model_folder(self.job), f".fold_{self.job.fold}.lock")
        self.command(name, words, lock, measured=name == "train")  # prediction takes as much with every trainer
