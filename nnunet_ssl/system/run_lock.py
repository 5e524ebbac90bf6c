"""One process trains in an output folder: a lock file there says which.

It is a plain file, since locks of the system do not hold between the hosts of many network file systems. Its holder
touches it every BEAT seconds. Whether a holder is alive is asked of the system where that can know, by process id and
start time (ids are used again); of another host, or container, only the signs of life tell.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import tempfile
import threading
import time
from _thread import interrupt_main
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, NamedTuple

import psutil
from nnunetv2.paths import nnUNet_results
from nnunetv2.utilities.file_path_utilities import get_output_folder
from torch import distributed as dist

from nnunet_ssl.errors import SemiSupervisedError, complain
from nnunet_ssl.system.failures import system_errors
from nnunet_ssl.system.whole_files import remove_unfinished

LOCK = "training.lock"
BEAT = 20.0  # seconds between two signs of life
SILENCE = 180.0  # seconds without one after which a holder counts as dead; NFS shows one up to a minute late
LOOK = 1.0  # seconds between two looks at somebody else's lock
SAME_START = 2.0  # seconds that two readings of a process' start time may differ


@dataclass(frozen=True)
class Holder:
    """A process, as the lock file names it.

    Attributes:
        host: its name.
        pid: process id.
        started: when, in seconds since the computer's start (Linux) or the epoch.
        scope: within which process ids can be compared.
        since: when it took the lock, for people.
    """

    host: str
    pid: int
    started: float
    scope: str
    since: str

    def is_same(self, other: Holder) -> bool:
        same_start = abs(self.started - other.started) < SAME_START
        return (self.scope, self.pid) == (other.scope, other.pid) and same_start


class _Lock(NamedTuple):
    """A lock file at one moment: when it was last touched, in ns, and its content."""

    stamp: int
    content: bytes

    def holder(self) -> Holder | None:
        """None where it cannot be understood; it may be written this moment."""
        try:
            return Holder(**json.loads(self.content))
        except (ValueError, TypeError):
            return None


def refuse_if_running(folder: str) -> None:
    """Return if no other process is training in the folder, which need not exist; nothing is changed there.

    A lock of another host, of which no sign of life is seen yet, is watched for up to SILENCE seconds.

    Raises:
        SemiSupervisedError: one is, with its host and process id.
    """
    _refuse_if_alive(os.path.join(folder, LOCK))


def _refuse_if_alive(path: str) -> _Lock | None:
    """As above, of any lock file. Returns the lock of a dead process, None where there is no lock."""
    first, end = None, 0.0
    while (lock := _look(path)) is not None:
        holder = lock.holder()
        if holder is not None and holder.scope == _scope():
            if _lives(holder) and not holder.is_same(_this_process()):
                raise _refusal(holder, path)
            return lock
        if first is None:
            first, silent = lock, _silence(path)
            end = time.monotonic() + SILENCE - silent
            if silent < SILENCE:
                print(f"{path} names {_name(holder)}; waiting for a sign of life from there.", flush=True)
        elif lock.stamp != first.stamp:
            raise _refusal(holder, path)
        if time.monotonic() >= end:
            return lock
        time.sleep(LOOK)
    return None


def refuse_if_trained_elsewhere(plans: Mapping[str, Any], trainer: str, configuration: str, fold: int | str) -> None:
    """The above, before nnU-Net's constructor puts a log file into the output folder; the first rank asks for all."""
    if nnUNet_results.is_set() and not (dist.is_available() and dist.is_initialized() and dist.get_rank()):
        refuse_if_running(get_output_folder(plans["dataset_name"], trainer, plans["plans_name"], configuration, fold))


@contextmanager
def alone_in(folder: str) -> Iterator[None]:
    """Hold the folder's lock; a dead process' lock is taken over, and its unfinished files are removed.

    Inside another block of the same process and folder this does nothing.

    Raises:
        SemiSupervisedError: another process is training there.
    """
    path = os.path.join(folder, LOCK)
    me = _this_process()
    holder = _read(path)
    if holder is not None and holder.is_same(me):
        yield
        return
    os.makedirs(folder, exist_ok=True)
    _acquire(path, me)
    remove_unfinished(folder)
    stop = threading.Event()
    threading.Thread(target=_beat, args=(path, me, stop), name="training lock", daemon=True).start()
    try:
        yield
    finally:
        stop.set()
        _remove(path, me)


def _create(path: str, me: Holder) -> bool:
    """False if there is a lock."""
    with system_errors(path):
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(asdict(me), file)
        except OSError:
            os.remove(path)
            raise
    return True


def _beat(path: str, me: Holder, stop: threading.Event) -> None:
    """Signs of life, until the training ends. A lock that somebody deleted is set up again."""
    while not stop.wait(BEAT):
        with suppress(OSError):  # of a network that fails for a moment: no reason to end a training, or these signs
            holder = _read(path)
            if holder is not None and not holder.is_same(me):
                print(f"This process was silent for too long; {path} is held by {_name(holder)} now.", file=sys.stderr)
                interrupt_main()
                return
            os.utime(path) if os.path.exists(path) else _create(path, me)


def _remove(path: str, me: Holder) -> None:
    with suppress(OSError):
        holder = _read(path)
        if holder is not None and holder.is_same(me):
            os.remove(path)


def _acquire(path: str, me: Holder) -> None:
    """Hold the lock file, which may be that of a dead process."""
    while not _create(path, me):
        if (dead := _refuse_if_alive(path)) is not None:
            _remove_dead(path, dead, me)


def _remove_dead(path: str, dead: _Lock, me: Holder) -> None:
    """Remove the lock if it still is the dead one. Another process' lock is not touched, not for a moment.

    Nothing removes a file only if it is a certain one. So whoever wants to remove a dead lock first takes a lock for
    that, under a name that follows from the dead one.
    """
    claim = f"{path}.{hashlib.sha256(str(dead).encode()).hexdigest()[:12]}.tmp"
    _acquire(claim, me)
    try:
        if _look(path) == dead:
            os.remove(path)
            print(f"{path}: taken over from {_name(dead.holder())}, which has ended without removing it.", flush=True)
    finally:
        _remove(claim, me)


def _refusal(holder: Holder | None, path: str) -> SemiSupervisedError:
    remedy = "Wait for it, or end it there."
    if holder is None or holder.scope != _scope():
        remedy += (
            f" If it hangs and cannot be ended, delete {path}. After the end of its host this is not necessary: start "
            f"again, and the lock is taken over {SILENCE:.0f} s after the last sign of life."
        )
    since = f", since {holder.since}" if holder is not None else ""
    return complain(f"{os.path.dirname(path)} is in use: this training is running, {_name(holder)}{since}.", (), remedy)


def _name(holder: Holder | None) -> str:
    return f"process {holder.pid} on {holder.host}" if holder is not None else "nobody that can be read"


def _read(path: str) -> Holder | None:
    lock = _look(path)
    return lock.holder() if lock is not None else None


def _look(path: str) -> _Lock | None:
    """None where there is none. Opened before its time is asked for: network file systems look afresh only then."""
    try:
        with open(path, "rb") as file:
            return _Lock(os.fstat(file.fileno()).st_mtime_ns, file.read())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _silence(path: str) -> float:
    """Seconds since the last sign of life, by the clock of the file system: those of hosts differ."""
    with system_errors(path), tempfile.TemporaryFile(dir=os.path.dirname(path)) as file:
        file.write(b"0")
        file.flush()
        now = os.fstat(file.fileno()).st_mtime_ns
    lock = _look(path)
    return (now - lock.stamp) / 1e9 if lock is not None else 0.0


def _lives(holder: Holder) -> bool:
    try:
        process = psutil.Process(holder.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return abs(_started(process) - holder.started) < SAME_START
    except psutil.NoSuchProcess:
        return False


def _started(process: psutil.Process) -> float:
    """On Linux since the start of the computer; psutil adds the time of day of that, which moves with the clock."""
    return process.create_time() - (psutil.boot_time() if sys.platform == "linux" else 0.0)


def _this_process() -> Holder:
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return Holder(socket.gethostname(), os.getpid(), _started(psutil.Process()), _scope(), since)


def _scope() -> str:
    """The host, on Linux with its start and the container: within it a process id means one process."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            parts.append(file.read().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
