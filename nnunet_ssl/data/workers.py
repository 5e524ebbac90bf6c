"""Many independent tasks on spawned processes, as nnU-Net's own preprocessing runs them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, TypeVar

from tqdm import tqdm

from nnunet_ssl.errors import complain
from nnunet_ssl.system.processes import end_with_parent

T = TypeVar("T")
PATIENCE = 10  # seconds for a terminated process to end


class Workers:
    """A pool of processes. With one process everything runs in this one.

    Args:
        num_processes: at least 1.
    """

    def __init__(self, num_processes: int) -> None:
        if num_processes < 1:
            raise complain(f"The number of processes must be at least 1, got {num_processes}.")
        self.num_processes = num_processes
        self._executor: ProcessPoolExecutor | None = None
        self._others: set[BaseProcess] = set()  # children of this process that are not ours

    def __enter__(self) -> Workers:
        if self.num_processes > 1:
            context = multiprocessing.get_context("spawn")
            self._others = set(multiprocessing.active_children())
            self._executor = ProcessPoolExecutor(self.num_processes, context, live_with_parent)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._executor is not None:
            try:
                self._executor.shutdown(wait=True, cancel_futures=True)
            except KeyboardInterrupt:
                self._terminate()
                raise

    def map(self, function: Callable[..., T], tasks: Mapping[str, tuple[Any, ...]], description: str) -> dict[str, T]:
        """``{name: function(*arguments)}`` in the order of the tasks, with a progress bar.

        Ctrl-C ends the processes before KeyboardInterrupt goes on, so that nobody writes any more when files are
        tidied up.

        Raises:
            SemiSupervisedError: a process died, with the names of the tasks that were not done.
        """
        results: dict[str, T] = {}
        # miniters=1 keeps tqdm's monitor thread from printing while a reader's output is captured
        with tqdm(total=len(tasks), desc=description, miniters=1) as bar:
            if self._executor is None:
                for name, arguments in tasks.items():
                    results[name] = function(*arguments)
                    bar.update()
                return results
            try:
                with _without_interrupts():  # submitting starts processes; they inherit it and ignore Ctrl-C from birth
                    names: dict[Future[T], str] = {
                        self._executor.submit(function, *arguments): name for name, arguments in tasks.items()
                    }
                for future in as_completed(names):
                    results[names[future]] = future.result()
                    bar.update()
            except KeyboardInterrupt:
                self._terminate()
                raise
            except BrokenProcessPool as error:
                bar.close()
                raise complain(
                    f"{description}: a worker process died, most likely because memory ran out. Cases not done:",
                    [name for name in tasks if name not in results],
                    "Finished cases are kept. Run the command again with fewer processes (-np).",
                ) from error
            except Exception:
                for future in names:
                    future.cancel()
                wait(names)  # nobody writes any more when files are tidied up
                raise
        return {name: results[name] for name in tasks}

    def _terminate(self) -> None:
        """End the processes in the middle of their tasks; waiting for these could take minutes."""
        assert self._executor is not None
        with _without_interrupts():
            processes = set(multiprocessing.active_children()) - self._others
            for process in processes:
                process.terminate()
            self._executor.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.join(PATIENCE)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C is ignored by this process and by those it starts meanwhile. Only the main thread can arrange that."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def usable_cores() -> int:
    """Cores that this process may use, which on a cluster are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def live_with_parent() -> None:
    """For a worker's start. Ctrl-C is the parent's affair; a parent killed without a word takes its workers along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
