"""The one object that submitit pickles. Nothing heavy is imported here, since each task imports it again."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import psutil

from nnunet_ssl.system.processes import GRACE, guarded


class JobCommand:
    """What submitit runs: the same command as in the scripts, and how it goes on after preemption or time-out.

    A command, not the training itself, so that nothing of nnU-Net is pickled and the job ends as it does everywhere.

    Args:
        words: of the command.
        environment: added to that of the task.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        self.words, self.environment = list(words), dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """The exit code; the record says what it means, so that a failed job does not look like a failed task."""
        # the guard ends the job with the task, and passes a signal on; the job needs its own time to end its commands
        words = guarded(self.words, grace=4 * GRACE)
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, env={**os.environ, **self.environment})
        return self._process.wait()

    def checkpoint(self) -> Any:
        """Called by submitit before the task is killed: end the training, submit the same again."""
        import submitit

        if self._process is not None:
            process = psutil.Process(self._process.pid)
            process.send_signal(signal.SIGTERM)
            process.wait()  # not Popen's, whose lock the interrupted call holds
        self._process = None
        return submitit.helpers.DelayedSubmission(self)
