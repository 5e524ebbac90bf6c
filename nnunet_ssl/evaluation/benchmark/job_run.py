"""One job while it runs in this process, whatever it consists of: its commands, its log and its record."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from nnunet_ssl import discovery
from nnunet_ssl.console import find_command
from nnunet_ssl.evaluation.benchmark import provenance
from nnunet_ssl.evaluation.benchmark.command import Interrupted, run_command
from nnunet_ssl.evaluation.benchmark.evaluator import Evaluator
from nnunet_ssl.evaluation.benchmark.jobs import (
    COMPLETE,
    FAILED,
    INTERRUPTED,
    RUNNING,
    Record,
    Stage,
    job_folder,
    log_path,
    read_record,
    write_record,
)
from nnunet_ssl.evaluation.benchmark.resources import Peak
from nnunet_ssl.evaluation.benchmark.scores import ToEvaluate

LINES_KEPT = 25  # of the log of a command that failed


class StageFailed(Exception):
    """A stage ended with an error, which the log tells."""


class Named(Protocol):
    """What every kind of job has. ``epochs``: length of its training, None where it trains nothing."""

    @property
    def id(self) -> str: ...

    @property
    def epochs(self) -> int | None: ...


class JobRun:
    """The state of one job while it runs. A kind of job says what its work is, and what belongs into its record.

    Args:
        output: folder of records and logs.
        job: what is to be done.
        device: nnU-Net's -device.
        variables: added to the environment of the commands, see ``resources.job_variables``.
        evaluator: evaluates for this and other jobs.
        stop: set by somebody else to interrupt the job.
        watch: called with the record at each change.
    """

    def __init__(
        self,
        output: str,
        job: Any,
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
        self.folder = job_folder(output, job.id)
        self.log = log_path(output, job.id)
        self.peak = Peak(gpu=device == "cuda")
        os.makedirs(self.folder, exist_ok=True)
        self.record = self._begin()

    # ---- what a kind of job writes

    def work(self) -> None:
        """Do what is left."""
        raise NotImplementedError

    def description(self) -> dict[str, Any]:
        """What its record says of the job: job, settings, settings_sha256, test and results_folder."""
        raise NotImplementedError

    def forget(self) -> None:
        """Remove what a job of this name with other settings has left."""

    def take_over(self, old: Record) -> None:
        """An earlier start of the same job is continued."""

    # ---- running

    def run(self) -> Record:
        """Do what is left of the job. Errors end up in the record, never here."""
        self._save()
        try:
            self.work()
            self.record.state = COMPLETE
        except Interrupted:
            self.record.state, self.record.error = INTERRUPTED, "interrupted; give the command again to continue"
        except StageFailed:
            self.record.state, self.record.error = FAILED, last_lines(self.log)
        except Exception as error:  # of our own code or of the file system: the other jobs shall go on
            self.note(f"{type(error).__name__}: {error}")
            self.record.state, self.record.error = FAILED, last_lines(self.log)
        self._save()
        return self.record

    def command(self, name: str, words: list[str], lock: str, measured: bool = False) -> None:
        """Run a command as a stage of the job.

        Args:
            name: of the stage.
            words: of the command, the first by name or with its path.
            lock: file on which it keeps others away from the same result.
            measured: whether the memory that it takes is that of the job.

        Raises:
            StageFailed: it ended with an error.
            Interrupted: the job is to end.
        """
        stage, start = self._start(name, words), time.monotonic()
        os.makedirs(os.path.dirname(lock), exist_ok=True)
        code = None
        try:
            program = words[0] if os.path.isabs(words[0]) else find_command(words[0])
            code = run_command([program, *words[1:]], self.log, lock, self.environment, self.peak, self.stop)
        finally:
            if measured:
                self.record.peak_memory_mb = _larger(self.record.peak_memory_mb, self.peak.memory_mb)
                self.record.peak_gpu_memory_mb = _larger(self.record.peak_gpu_memory_mb, self.peak.gpu_memory_mb)
            self._finish(stage, code, time.monotonic() - start)
        if code:
            self.note(f"{words[0]} ended with code {code}")
            raise StageFailed

    def evaluate(self, evaluation: ToEvaluate) -> None:
        """Evaluate as a stage of the job.

        Raises:
            Interrupted: the job is to end.
        """
        with self.stage("evaluate", evaluation.words):
            self.evaluator.evaluate(evaluation, self.log, self.stop)

    @contextmanager
    def stage(self, name: str, words: list[str]) -> Iterator[None]:
        """Work of this process as a stage of the job."""
        if self.stop.is_set():
            raise Interrupted
        stage, start = self._start(name, words), time.monotonic()
        try:
            yield
        except Interrupted:
            self._finish(stage, None, time.monotonic() - start)
            raise
        except Exception:
            self._finish(stage, 1, time.monotonic() - start)
            raise
        self._finish(stage, 0, time.monotonic() - start)

    def note(self, line: str) -> None:
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    # ---- record

    def _start(self, name: str, words: list[str]) -> Stage:
        stage = Stage(name, words, now())
        self.record.stages.append(stage)
        self.note(f"$ {' '.join(words)}")
        self._save()
        return stage

    def _finish(self, stage: Stage, code: int | None, seconds: float) -> None:
        stage.exit_code, stage.seconds = code, round(seconds, 3)
        self._save()

    def _save(self) -> None:
        self.record.seconds = round(sum(stage.seconds or 0.0 for stage in self.record.stages), 3)
        write_record(self.output, self.job.id, self.record)
        self.watch(self.record)

    def _begin(self) -> Record:
        """A new record; with other settings than now, former starts belong to another job."""
        old = read_record(self.output, self.job.id)
        gpu = self.environment.get("CUDA_VISIBLE_DEVICES")
        record = Record(
            **self.description(),
            state=RUNNING,
            device=provenance.device_name(self.device, gpu),
            started=now(),
            versions=provenance.versions(),
            git_revision=provenance.git_revision(),
            host=provenance.host(),
        )
        if old is None or old.settings_sha256 != record.settings_sha256:
            self.forget()
            return record
        self.take_over(old)
        record.started, record.stages = old.started, old.stages
        record.peak_memory_mb, record.peak_gpu_memory_mb = old.peak_memory_mb, old.peak_gpu_memory_mb
        for stage in record.stages:
            if stage.seconds is None:  # everything was killed; the last sign of life is the log's
                began = datetime.fromisoformat(stage.started).timestamp()
                stage.seconds = round(max(0.0, _modified(self.log) - began), 3)
        return record


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def last_lines(path: str) -> str:
    """The end of a log, without empty lines."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return "\n".join(deque((line.rstrip() for line in file if line.strip()), maxlen=LINES_KEPT))


def _larger(first: float | None, second: float | None) -> float | None:
    values = [round(value, 1) for value in (first, second) if value is not None]
    return max(values) if values else None


def _modified(path: str) -> float:
    return os.path.getmtime(path) if os.path.exists(path) else 0.0
