"""Runs one command of a job: output into the log, memory watched, ended when the benchmark is."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence

import psutil

from nnunet_ssl.evaluation.benchmark.resources import Peak
from nnunet_ssl.system.processes import GRACE, guarded

PERIOD = 0.5  # seconds between two looks at the memory
SIGNALLED = (128 + signal.SIGTERM, 128 + signal.SIGINT)


class Interrupted(Exception):
    """The benchmark was told to end while the command ran."""


def run_command(
    command: Sequence[str],
    log: str,
    lock: str,
    environment: Mapping[str, str],
    peak: Peak,
    stop: threading.Event,
) -> int:
    """Run a command and return its exit code.

    Args:
        command: words, the first with its path.
        log: file that stdout and stderr are appended to.
        lock: file on which the command keeps others away from the same result, as long as it lives.
        environment: the whole of it.
        peak: updated while the command runs.
        stop: set it to end the command.

    Raises:
        Interrupted: ``stop`` was set.
    """
    with (
        open(log, "ab") as file,
        subprocess.Popen(
            guarded(command, lock, GRACE),
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**environment, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C is for us alone
        ) as process,
    ):
        assert process.stdin is not None
        try:
            while process.poll() is None and not stop.wait(PERIOD):
                peak.sample(process.pid)
        finally:
            process.stdin.close()
            _end(process)
    if process.returncode in SIGNALLED:
        stop.wait(1.0)  # a scheduler signals everybody at once, perhaps the command first
    if stop.is_set():
        raise Interrupted
    return process.returncode


def _end(process: subprocess.Popen[bytes]) -> None:
    """The guard ends by itself once its input is closed; this is for one that cannot."""
    try:
        process.wait(GRACE + 5)
    except subprocess.TimeoutExpired:
        for descendant in psutil.Process(process.pid).children(recursive=True):
            descendant.kill()
        process.kill()
