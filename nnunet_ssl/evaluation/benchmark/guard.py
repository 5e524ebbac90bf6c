"""Run as a script: runs one command for a benchmark, alone on a lock, and ends it when the benchmark is gone.

    guard.py LOCK GRACE COMMAND ...

Its standard input is a pipe that nobody writes to. When the benchmark closes it, or is killed, the command and all that
it has started get SIGTERM, and SIGKILL after GRACE seconds; so do the workers of a command that fails. Without this, a
benchmark that is killed leaves its training runs behind, and the next start would train in the same folder beside them.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time

if __name__ == "__main__":
    del sys.path[0]  # the folder of this script

from filelock import AcquireReturnProxy, FileLock, Timeout


def run(lock: str, grace: float, command: list[str]) -> int:
    """The exit code of the command, 128 + n where signal n ended it."""
    with _acquired(lock):
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        threading.Thread(target=_end_with_parent, args=(child.pid, grace), daemon=True).start()
        code = child.wait()
        if code:
            end(child.pid, grace)
    return code if code >= 0 else 128 - code


def end(group: int, grace: float) -> None:
    """SIGTERM for a process group, and SIGKILL if anybody in it is left after ``grace`` seconds."""
    try:
        os.killpg(group, signal.SIGTERM)
        last = time.monotonic() + grace
        while time.monotonic() < last:
            time.sleep(0.05)
            os.killpg(group, 0)
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # macOS: the second one for a group of zombies
        pass


def _acquired(lock: str) -> AcquireReturnProxy:
    try:
        return FileLock(lock).acquire(timeout=0)
    except Timeout:
        print(f"Another process works on this result and holds {lock}; waiting for it.", flush=True)
    while not select.select([0], [], [], 0)[0]:  # the input is "readable" when it is closed
        try:
            return FileLock(lock).acquire(timeout=1)
        except Timeout:
            continue
    sys.exit(128 + signal.SIGTERM)


def _end_with_parent(group: int, grace: float) -> None:
    while os.read(0, 1):  # sys.stdin would be locked by this thread when Python ends
        pass
    end(group, grace)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))
