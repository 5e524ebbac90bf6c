"""One job from beginning to end: train, predict, evaluate, each only where it is not done yet, all of it on record."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path

from nnunet_ssl import discovery
from nnunet_ssl.console import find_command
from nnunet_ssl.evaluation.benchmark import provenance
from nnunet_ssl.evaluation.benchmark.command import Interrupted, run_command
from nnunet_ssl.evaluation.benchmark.evaluator import Evaluator
from nnunet_ssl.evaluation.benchmark.jobs import (
    COMPLETE,
    DESCRIPTION,
    FAILED,
    INTERRUPTED,
    RUNNING,
    Job,
    Record,
    Stage,
    job_folder,
    log_path,
    read_record,
    test_set,
    write_record,
)
from nnunet_ssl.evaluation.benchmark.resources import Peak
from nnunet_ssl.evaluation.benchmark.results import CHECKPOINT, fold_folder, is_trained, model_folder, training_figures
from nnunet_ssl.evaluation.benchmark.scores import evaluation_of_test_set, evaluation_of_validation

LINES_KEPT = 25  # of the log of a command that failed


class StageFailed(Exception):
    """A stage ended with an error, which the log tells."""


class Execution:
    """The state of one job while it runs in this process.

    Args:
        output: folder of the benchmark.
        device: nnU-Net's -device.
        variables: added to the environment of the commands, see ``resources.job_variables``.
        evaluator: evaluates for this and other jobs.
        stop: set by somebody else to interrupt the job.
        watch: called with the record at each change.
    """

    def __init__(
        self,
        output: str,
        job: Job,
        device: str,
        variables: Mapping[str, str],
        evaluator: Evaluator,
        stop: threading.Event | None = None,
        watch: Callable[[Record], None] = lambda record: None,
    ) -> None:
        self.output, self.job, self.device, self.evaluator = output, job, device, evaluator
        self.environment = {**os.environ, **variables}
        self.environment[discovery.VARIABLE] = discovery.ext_trainer_value(os.environ.get(discovery.VARIABLE))
        self.stop = stop or threading.Event()
        self.watch = watch
        self.log = log_path(output, job.id)
        self.peak = Peak(gpu=device == "cuda")
        os.makedirs(job_folder(output, job.id), exist_ok=True)
        self.record = self._begin()

    def run(self) -> Record:
        """Do what is left of the job. Errors end up in the record, never here."""
        self._save()
        try:
            self._train()
            self._predict()
            self._evaluate()
            self.record.state = COMPLETE
        except Interrupted:
            self.record.state, self.record.error = INTERRUPTED, "interrupted; start the benchmark again to continue"
        except StageFailed:
            self.record.state, self.record.error = FAILED, last_lines(self.log)
        except Exception as error:  # of our own code or of the file system: the other jobs shall go on
            self._note(f"{type(error).__name__}: {error}")
            self.record.state, self.record.error = FAILED, last_lines(self.log)
        self._save()
        return self.record

    def _train(self) -> None:
        job = self.job
        if not is_trained(job):
            model = ("-p", job.plans, "-tr", job.trainer)
            # --c: continues where there is a checkpoint, starts where there is none
            words = ["nnUNetv2_train", job.dataset, job.configuration, str(job.fold), *model, "-device", self.device]
            shutil.rmtree(os.path.join(job_folder(self.output, job.id), "test"), ignore_errors=True)  # of another model
            self._command("train", [*words, "--c"])
        if not is_trained(job):
            self._note(f"Training ended without an error but left no result in {fold_folder(job)}")
            raise StageFailed
        figures = training_figures(job)
        self.record.steps, self.record.seconds_per_step = figures.steps, figures.seconds_per_step

    def _predict(self) -> None:
        job = self.job
        if job.test_images is None:
            return
        target = os.path.join(job_folder(self.output, job.id), "test", "predictions")
        done = Path(f"{target}.done")
        if done.exists():
            return
        shutil.rmtree(target, ignore_errors=True)  # the last file of a cut off prediction may be half a file
        model = ("-p", job.plans, "-tr", job.trainer, "-f", str(job.fold), "-chk", CHECKPOINT)
        words = ["nnUNetv2_predict", "-i", job.test_images, "-o", target, "-d", job.dataset, "-c", job.configuration]
        self._command("predict", [*words, *model, "-device", self.device])
        done.touch()

    def _evaluate(self) -> None:
        folder = job_folder(self.output, self.job.id)
        todo = [evaluation_of_validation(self.job, folder)]
        if self.job.test_images is not None:
            todo.append(evaluation_of_test_set(self.job, folder))
        for evaluation in todo:
            if self.stop.is_set():
                raise Interrupted
            stage, start = self._start("evaluate", evaluation.words), time.monotonic()
            try:
                self.evaluator.evaluate(evaluation, self.log, self.stop)
            except Interrupted:
                self._finish(stage, None, time.monotonic() - start)
                raise
            except Exception:
                self._finish(stage, 1, time.monotonic() - start)
                raise
            self._finish(stage, 0, time.monotonic() - start)

    def _command(self, name: str, words: list[str]) -> None:
        stage, start = self._start(name, words), time.monotonic()
        os.makedirs(model_folder(self.job), exist_ok=True)
        # beside the results, since two benchmarks may name the same training
        lock = os.path.join(model_folder(self.job), f".fold_{self.job.fold}.lock")
        code = None
        try:
            code = run_command(
                [find_command(words[0]), *words[1:]], self.log, lock, self.environment, self.peak, self.stop
            )
        finally:
            if name == "train":  # prediction takes as much with every trainer, and may take more
                self.record.peak_memory_mb = _larger(self.record.peak_memory_mb, self.peak.memory_mb)
                self.record.peak_gpu_memory_mb = _larger(self.record.peak_gpu_memory_mb, self.peak.gpu_memory_mb)
            self._finish(stage, code, time.monotonic() - start)
        if code:
            self._note(f"{words[0]} ended with code {code}")
            raise StageFailed

    def _start(self, name: str, words: list[str]) -> Stage:
        stage = Stage(name, words, now())
        self.record.stages.append(stage)
        self._note(f"$ {' '.join(words)}")
        self._save()
        return stage

    def _finish(self, stage: Stage, code: int | None, seconds: float) -> None:
        stage.exit_code, stage.seconds = code, round(seconds, 3)
        self._save()

    def _note(self, line: str) -> None:
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def _save(self) -> None:
        self.record.seconds = round(sum(stage.seconds or 0.0 for stage in self.record.stages), 3)
        write_record(self.output, self.job.id, self.record)
        self.watch(self.record)

    def _begin(self) -> Record:
        """A new record; with other settings than now, former starts belong to another job."""
        job, old = self.job, read_record(self.output, self.job.id)
        gpu = self.environment.get("CUDA_VISIBLE_DEVICES")
        record = Record(
            job={key: getattr(job, key) for key in DESCRIPTION},
            state=RUNNING,
            device=provenance.device_name(self.device, gpu),
            settings=job.settings,
            settings_sha256=job.settings_sha256,
            test=test_set(job),
            started=now(),
            results_folder=fold_folder(job),
            versions=provenance.versions(),
            git_revision=provenance.git_revision(),
            host=provenance.host(),
        )
        if old is None or old.settings_sha256 != job.settings_sha256:
            self._forget()
            return record
        if old.test != record.test:
            shutil.rmtree(os.path.join(job_folder(self.output, job.id), "test"), ignore_errors=True)
        record.started, record.stages = old.started, old.stages
        record.peak_memory_mb, record.peak_gpu_memory_mb = old.peak_memory_mb, old.peak_gpu_memory_mb
        for stage in record.stages:
            if stage.seconds is None:  # everything was killed; the last sign of life is the log's
                began = datetime.fromisoformat(stage.started).timestamp()
                stage.seconds = round(max(0.0, _modified(self.log) - began), 3)
        return record

    def _forget(self) -> None:
        """What another job of this name has left in its folder; its training stays where nnU-Net put it."""
        folder = Path(job_folder(self.output, self.job.id))
        shutil.rmtree(folder / "test", ignore_errors=True)
        for path in (*folder.glob("evaluation.*"), folder / "log.txt"):
            path.unlink(missing_ok=True)


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def last_lines(path: str) -> str:
    """The end of a log, without empty lines."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return "\n".join(deque((line.rstrip() for line in file if line.strip()), maxlen=LINES_KEPT))


def _larger(first: float | None, second: float | None) -> float | None:
    values = [round(value, 1) for value in (first, second) if value is not None]
    return max(values) if values else None


def _modified(path: str) -> float:
    return os.path.getmtime(path) if os.path.exists(path) else 0.0
