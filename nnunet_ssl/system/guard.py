"""Run as a script: runs one command, alone on a lock, and ends it when whoever started it is gone.

    guard.py LOCK GRACE COMMAND ...

Its standard input is a pipe that nobody writes to. When the parent closes it, or is killed, the command and all that it
has started get SIGTERM, and SIGKILL after GRACE seconds; so do the workers of a command that fails, and everything when
the guard itself is told to end. Without this, a benchmark or a demo that is killed leaves its training runs behind,
and the next start would train in the same folder beside them. LOCK may be empty.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext

if __name__ == "__main__":
    del sys.path[0]  # the folder of this script

from filelock import AcquireReturnProxy, FileLock, Timeout

PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


def run(lock: str, grace: float, command: list[str]) -> int:
    """The exit code of the command, 128 + n where signal n ended it."""
    with _acquired(lock) if lock else nullcontext():
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_guard)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # in a thread, for the main one takes note that the command has ended
            signal.signal(number, lambda *_: threading.Thread(target=end, args=(child.pid, grace)).start())
        threading.Thread(target=_end_with_parent, args=(child.pid, grace), daemon=True).start()
        code = child.wait()
        if code:
            end(child.pid, grace)
    return code if code >= 0 else 128 - code


def _die_with_guard() -> None:
    """Runs in the child. On Linux the kernel ends the command even if the guard is killed with SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


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
