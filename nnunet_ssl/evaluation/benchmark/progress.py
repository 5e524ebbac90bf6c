"""The table of a running benchmark on a terminal; plain lines where the output goes elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nnunet_ssl.evaluation.benchmark.job_run import Named
from nnunet_ssl.evaluation.benchmark.jobs import COMPLETE, FAILED, INTERRUPTED, RUNNING, WAITING, Record, log_path
from nnunet_ssl.evaluation.benchmark.training_log import TrainingLog

COLORS = {RUNNING: "cyan", COMPLETE: "green", FAILED: "red", INTERRUPTED: "yellow", WAITING: "dim"}
ORDER = (RUNNING, FAILED, INTERRUPTED, WAITING, COMPLETE)  # what needs attention stands on top
MARGIN = 6  # lines of the terminal that the table leaves free


class Board:
    """State of every job, and how it is shown.

    Args:
        output: folder of the benchmark.
        jobs: in the order of the table.
        at_once: how many run at the same time, for the estimate of the time left.
    """

    def __init__(self, output: str, jobs: Sequence[Named], at_once: int) -> None:
        self.states = {job.id: WAITING for job in jobs}
        self._at_once = max(1, at_once)
        self._stages = {job.id: "" for job in jobs}
        self._seconds: dict[str, float] = {}  # of the jobs that this start has finished
        self._began: dict[str, float] = {}
        self._logs = {job.id: TrainingLog(log_path(output, job.id), job.epochs) for job in jobs}

    def found(self, job_id: str) -> None:
        """The job was complete before."""
        self.states[job_id] = COMPLETE

    def changed(self, job_id: str, record: Record) -> None:
        """A job's record was written."""
        if record.state == RUNNING:
            self._began.setdefault(job_id, time.monotonic())
        elif job_id in self._began:
            self._seconds[job_id] = time.monotonic() - self._began[job_id]
        self.states[job_id] = record.state
        self._stages[job_id] = record.stages[-1].name if record.stages else ""

    def doing(self, job_id: str) -> tuple[str, str, str]:
        """(stage, epoch, time left) of a job, empty where they say nothing."""
        if self.states[job_id] != RUNNING:
            return "", "", ""
        log = self._logs[job_id]
        log.read()
        stage, left = self._stages[job_id], log.seconds_left
        if stage == "train":
            stage = "validate" if log.validating else stage
            return stage, f"{log.done}/{log.epochs or '?'}", "" if left is None or log.validating else duration(left)
        return stage, "", ""

    def summary(self) -> str:
        """Counts of the states, and an estimate of the whole time left."""
        counts = Counter(self.states.values())
        text = ", ".join(f"{counts[state]} {state}" for state in ORDER if counts[state])
        rest = counts[WAITING] + counts[RUNNING] / 2
        if self._seconds and rest:
            mean = sum(self._seconds.values()) / len(self._seconds)
            text += f"; about {duration(mean * rest / self._at_once)} left"
        return text

    def table(self, height: int) -> Group:
        """At most ``height`` jobs, those that run first."""
        table = Table("job", "state", "doing", "epoch", "time left", title="Semi-supervised benchmark", box=None)
        ordered = sorted(self.states, key=lambda job_id: ORDER.index(self.states[job_id]))
        for job_id in ordered[:height]:
            state = self.states[job_id]
            table.add_row(job_id.replace("__", " "), Text(state, COLORS[state]), *self.doing(job_id))
        more = len(ordered) - height
        return Group(table, Text(f"... and {more} more" if more > 0 else ""), Text(self.summary()))


class Display(Protocol):
    """What shows a board while jobs run."""

    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    def refresh(self) -> None:
        """Called about once per second from the main thread."""


class LiveTable:
    """A table that is drawn over and over."""

    def __init__(self, board: Board, console: Console) -> None:
        self._board, self._console = board, console
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> LiveTable:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.refresh()
        self._live.stop()

    def refresh(self) -> None:
        height = max(1, self._console.size.height - MARGIN)
        self._live.update(self._board.table(height), refresh=True)


class Lines:
    """One line per change of a state, for logs."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._shown: dict[str, str] = {}

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.refresh()

    def refresh(self) -> None:
        states = dict(self._board.states)
        changed = [j for j, state in states.items() if state != self._shown.get(j, WAITING)]
        for job_id in changed:
            before = " before, skipped" if job_id not in self._shown and states[job_id] == COMPLETE else ""
            print(f"{states[job_id]}{before}: {job_id}   [{self._board.summary()}]", flush=True)
        self._shown |= {job_id: states[job_id] for job_id in changed}


def display(board: Board) -> Display:
    """The live table on a terminal, else lines; a notebook asks for colours (FORCE_COLOR) and is none."""
    console = Console()
    return LiveTable(board, console) if console.is_terminal and sys.stdout.isatty() else Lines(board)


def duration(seconds: float) -> str:
    """3725 -> "1 h 02 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
