"""One process that evaluates for all jobs of a benchmark, one after the other.

Its imports (MONAI, PyTorch) take longer than most evaluations, so it is started once. It is a process and not a thread
because reading images catches what C++ libraries print, by turning the output of the whole process away.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from types import TracebackType

from nnunet_ssl.data.workers import live_with_parent
from nnunet_ssl.evaluation.benchmark.command import PERIOD, Interrupted
from nnunet_ssl.evaluation.benchmark.scores import ToEvaluate


class Evaluator:
    """To be used with ``with``; the process starts when it is first needed, and ends with this one, however that ends.

    Args:
        processes: that a large evaluation may use.
    """

    def __init__(self, processes: int = 1) -> None:
        self.processes = processes
        self._lock = threading.Lock()
        self._executor: ProcessPoolExecutor | None = None
        self._own: set[BaseProcess] = set()
        self._last: Future[None] | None = None

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._executor is not None:
            if self._last is not None and not self._last.done():  # whoever wanted the result has given up
                for process in self._own:
                    process.terminate()
            self._executor.shutdown(cancel_futures=True)

    def evaluate(self, task: ToEvaluate, log: str, stop: threading.Event) -> None:
        """Evaluate and write the results; what is printed meanwhile goes into the log.

        Raises:
            Interrupted: ``stop`` was set.
            SemiSupervisedError, OSError: as ``evaluate_folder`` does.
            BrokenProcessPool: the process was killed.
        """
        future = self._submit(task, log)
        while not wait([future], PERIOD).done and not stop.is_set():
            pass
        try:
            if stop.is_set():
                raise Interrupted
            future.result()
        except BrokenProcessPool:
            if stop.wait(1.0):  # the signal that ends the benchmark may have reached that process first
                raise Interrupted from None
            raise

    def _submit(self, task: ToEvaluate, log: str) -> Future[None]:
        with self._lock:
            if self._executor is None or not any(process.is_alive() for process in self._own):
                self._executor = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), live_with_parent)
            before = set(multiprocessing.active_children())
            future = self._last = self._executor.submit(_evaluate, task, self.processes, log)
            self._own |= set(multiprocessing.active_children()) - before
            return future


def _evaluate(task: ToEvaluate, processes: int, log: str) -> None:
    """Runs in the other process."""
    with open(log, "ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    task.run(processes)
