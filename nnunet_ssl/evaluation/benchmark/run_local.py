"""Runs the jobs on this computer, one per GPU, or a number of them on the CPU."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

from nnunet_ssl.data.workers import usable_cores
from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.benchmark.evaluator import Evaluator
from nnunet_ssl.evaluation.benchmark.jobs import (
    COMPLETE,
    FAILED,
    INTERRUPTED,
    Job,
    Record,
    job_folder,
    log_path,
    read_record,
    write_record,
)
from nnunet_ssl.evaluation.benchmark.progress import Board, display
from nnunet_ssl.evaluation.benchmark.resources import job_variables, visible_gpus
from nnunet_ssl.evaluation.benchmark.work import BENCHMARK, Work

REFRESH = 0.5  # seconds between two looks at the jobs
RETRY = 5.0  # seconds until a job that somebody else runs is looked at again
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """The benchmark was told to end by a signal, and has ended its jobs."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


def ended_by(stopped: Stopped, command: str) -> int:
    """Say by which signal a command of nnunet_ssl was ended. Returns its exit code, as shells give it.

    Raises:
        KeyboardInterrupt: after Ctrl-C, which is explained where all commands explain it.
    """
    if stopped.signal_number == signal.SIGINT:
        raise KeyboardInterrupt from None
    name = signal.Signals(stopped.signal_number).name
    print(f"nnunet_ssl {command}: ended by {name}; start it again to continue", file=sys.stderr)
    return 128 + stopped.signal_number


class Stop(threading.Event):
    """Set by the signal that ends the benchmark."""

    signal_number = 0


@contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """SIGINT, SIGTERM and SIGHUP set the event, unless they are ignored as under nohup; later they do what they did.

    Raises:
        Stopped: at the end of the block, if one of them came.
    """
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.signal_number = number
        stop.set()

    heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    former = {number: signal.signal(number, handle) for number in heeded}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    if stop.is_set():
        raise Stopped(stop.signal_number)


@dataclass(frozen=True)
class Here:
    """What the jobs that run on this computer share.

    Attributes:
        output: folder of the benchmark.
        device: nnU-Net's -device.
        at_once: number of jobs that run at the same time.
        evaluator: evaluates for all of them.
        stop: ends them.
        board: shows them.
        work: what kind of jobs they are.
    """

    output: str
    device: str
    at_once: int
    evaluator: Evaluator
    stop: threading.Event
    board: Board
    work: Work = BENCHMARK


def run_in_foreground(output: str, job: Any, device: str, work: Work = BENCHMARK) -> int:
    """One job that says how it went. Returns 1 if it is not complete in the end.

    Args:
        output: folder of the benchmark.
        job: what to run.
        device: nnU-Net's -device.
        work: what kind of job it is.
    """
    print(f"log: {log_path(output, job.id)}", flush=True)
    with stopped_by_signals() as stop, Evaluator(usable_cores()) as evaluator:
        here = Here(output, device, 1, evaluator, stop, work.board(output, [job], 1), work)
        record = run_one(here, job, None)
    if record is None:
        print(f"{job.id} is being run by another process; nothing was done.", file=sys.stderr)
        return 1
    print(f"{record.state}: {job.id}", flush=True)
    if record.state == FAILED:
        print(record.error, file=sys.stderr)
    return 0 if record.state == COMPLETE else 1


def run_one(here: Here, job: Any, gpu: str | None) -> Record | None:
    """Run what is left of a job, alone.

    Args:
        gpu: for CUDA_VISIBLE_DEVICES, or None to leave it alone.

    Returns:
        Its record; None where another process is running the job.
    """
    folder = job_folder(here.output, job.id)
    os.makedirs(folder, exist_ok=True)
    try:
        with FileLock(os.path.join(folder, ".lock"), timeout=0, thread_local=False):
            if here.work.is_complete(here.output, job):
                here.board.found(job.id)
                return read_record(here.output, job.id)
            variables = job_variables(os.environ, here.device, gpu, here.at_once)
            return here.work.execution(
                here.output,
                job,
                here.device,
                variables,
                here.evaluator,
                here.stop,
                lambda record: here.board.changed(job.id, record),
            ).run()
    except Timeout:
        return None


def slots(device: str, processes: int | None) -> list[str | None]:
    """One entry per job that may run at a time: its GPU, or None on the CPU.

    Raises:
        SemiSupervisedError: no GPU is there.
    """
    if device != "cuda":
        return [None] * (processes or 1)
    gpus = visible_gpus(os.environ)
    if not gpus:
        raise complain(
            "The training is to run on the GPU, but PyTorch finds none.",
            remedy="Run it where there is one, or with -device cpu.",
        )
    return [gpus[index % len(gpus)] for index in range(processes or len(gpus))]


def run_local(output: str, jobs: Sequence[Any], device: str, processes: int | None, work: Work = BENCHMARK) -> None:
    """Run all jobs that are not complete. What became of them stands in their records.

    A job whose prerequisites have failed is left waiting.

    Raises:
        Stopped: by a signal; the jobs in progress have ended and say that they were interrupted.
    """
    free = slots(device, processes)
    at_once = len(free)
    board = work.board(output, jobs, at_once)
    waiting: dict[str, float] = {}  # job -> when to look at it (again)
    by_id = {job.id: job for job in jobs}
    for job in jobs:
        if work.is_complete(output, job):
            board.found(job.id)
        else:
            waiting[job.id] = 0.0
    running: dict[Future[Record | None], tuple[str, str | None]] = {}
    with (
        stopped_by_signals() as stop,
        display(board) as shown,
        Evaluator(max(1, usable_cores() // at_once)) as evaluator,
        ThreadPoolExecutor(at_once) as pool,
    ):
        here = Here(output, device, at_once, evaluator, stop, board, work)

        def may_begin(job_id: str) -> bool:
            return all(board.states.get(earlier, COMPLETE) == COMPLETE for earlier in work.after(by_id[job_id]))

        try:
            while running or (any(map(may_begin, waiting)) and not stop.is_set()):
                ready = [i for i, moment in waiting.items() if moment <= time.monotonic() and may_begin(i)]
                for job_id in ready[: len(free)] if not stop.is_set() else ():
                    del waiting[job_id]
                    gpu = free.pop(0)
                    future = pool.submit(run_one, here, by_id[job_id], gpu)
                    running[future] = (job_id, gpu)
                done, _ = wait(running, REFRESH, FIRST_COMPLETED)
                for future in done:
                    job_id, gpu = running.pop(future)
                    free.append(gpu)
                    if future.result() is None:
                        waiting[job_id] = time.monotonic() + RETRY
                if not running:
                    stop.wait(0.0 if done else REFRESH)
                shown.refresh()
        except BaseException:
            stop.set()  # else the pool waits for training runs of days
            raise


def retire(output: str, jobs: Sequence[Job]) -> None:
    """Records made with other settings stop to count at once, not when their job's turn comes."""
    for job in jobs:
        record = read_record(output, job.id)
        if record is not None and record.settings_sha256 != job.settings_sha256 and record.state != INTERRUPTED:
            record.state, record.error = INTERRUPTED, "made with other settings; to be run again"
            write_record(output, job.id, record)
