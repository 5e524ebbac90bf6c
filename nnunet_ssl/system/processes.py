"""No process of ours outlives the one that started it, however that one ends."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from multiprocessing.util import register_after_fork
from pathlib import Path
from typing import Any

GUARD = Path(__file__).with_name("guard.py")
GRACE = 15.0  # seconds that a command has to end after SIGTERM
PERIOD = 1.0  # seconds between two looks at the parent


def guarded(command: Sequence[str], lock: str | None = None, grace: float = GRACE) -> list[str]:
    """The words that run a command under the guard, see guard.py. Its standard input must be a pipe of ours.

    Args:
        command: words, the first with its path.
        lock: file on which the command keeps others away from the same result, as long as it lives.
        grace: seconds between SIGTERM and SIGKILL.
    """
    return [sys.executable, str(GUARD), lock or "", str(grace), *command]


@contextmanager
def lifeline() -> Iterator[int]:
    """The reading end of a pipe into which nobody writes: it ends with the block, or with this process."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)


def end_with_parent() -> None:
    """End this process, one of Python's multiprocessing, within a second of its parent.

    A thread looks whether the parent is there. The kernel's own way (PR_SET_PDEATHSIG) exists on Linux only, and
    acts when the thread ends that started the process: pools are started by threads that end long before the pool.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent, os.getppid()), name="end with parent", daemon=True).start()


def _watch(parent: BaseProcess, started_by: int) -> None:
    """Two signs: a pipe is closed, which forked sisters can hold open; or this process has another parent now.

    The process that starts ours is the parent itself, or the fork server, which ends with the parent.
    """
    while parent.is_alive() and os.getppid() == started_by:
        parent.join(PERIOD)
    os._exit(1)


class EndsWithParent:
    """An attribute of data that goes to workers which others start: as long as it lives, these end with their parent.

    Python calls what is registered when a worker begins: a forked one has inherited it, another one has unpickled it.
    """

    def __init__(self) -> None:
        register_after_fork(self, lambda _: end_with_parent())

    def __reduce__(self) -> tuple[Any, ...]:
        return EndsWithParent, ()
