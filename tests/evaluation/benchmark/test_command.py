"""One command under its guard: exit code, log, memory, and that nothing outlives the benchmark."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from nnunet_ssl.evaluation.benchmark import command
from nnunet_ssl.evaluation.benchmark.command import Interrupted, run_command
from nnunet_ssl.evaluation.benchmark.resources import Peak
from nnunet_ssl.system.processes import guarded
from tests.waiting import gone, until

# a command with a child of its own, both of which write down who they are and then wait; the child ignores SIGTERM
FAMILY = """
import os, signal, sys, time
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(f"{sys.argv[1]}/{os.getpid()}", "w").close()
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command, "PERIOD", 0.02)
    monkeypatch.setattr(command, "GRACE", 0.3)


def execute(folder: Path, code: str, *arguments: object, peak: Peak | None = None, stop: threading.Event | None = None):
    words = [sys.executable, "-c", code, *map(str, arguments)]
    return run_command(
        words, str(folder / "log.txt"), str(folder / "lock"), os.environ, peak or Peak(False), stop or threading.Event()
    )


def family(folder: Path) -> list[psutil.Process]:
    until(lambda: len(list(folder.iterdir())) == 2)
    return [psutil.Process(int(path.name)) for path in folder.iterdir()]


def test_exit_code_and_output_of_both_streams(tmp_path: Path):
    (tmp_path / "log.txt").write_text("before\n")
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    assert execute(tmp_path, code) == 3
    assert (tmp_path / "log.txt").read_text().splitlines() == ["before", "out", "err"]


def test_a_command_that_was_killed(tmp_path: Path):
    assert execute(tmp_path, "import os; os.kill(os.getpid(), 9)") == 128 + signal.SIGKILL


def test_the_memory_of_children_counts(tmp_path: Path):
    code = "import os, time\nif os.fork() == 0:\n    block = bytearray(150_000_000)\ntime.sleep(0.4)"
    peak = Peak(False)
    assert execute(tmp_path, code, peak=peak) == 0
    assert peak.memory_mb is not None and 143 < peak.memory_mb < 250
    assert peak.gpu_memory_mb is None


def test_stopping_ends_the_command_and_what_it_started(tmp_path: Path):
    stop, folder = threading.Event(), tmp_path / "pids"
    folder.mkdir()
    processes = []

    def later():
        processes.extend(family(folder))
        stop.set()

    threading.Thread(target=later).start()
    with pytest.raises(Interrupted):
        execute(tmp_path, FAMILY, folder, stop=stop)
    assert len(processes) == 2
    until(lambda: gone(processes), 5)


def test_a_command_whose_parent_is_killed_ends_too(tmp_path: Path):
    """The guard is started by a process that is then killed with SIGKILL."""
    folder = tmp_path / "pids"
    folder.mkdir()
    words = guarded([sys.executable, "-c", FAMILY, str(folder)], str(tmp_path / "lock"), 0.3)
    code = f"import subprocess\nsubprocess.Popen({words!r}, stdin=subprocess.PIPE, start_new_session=True).wait()"
    parent = subprocess.Popen([sys.executable, "-c", code])
    processes = family(folder)
    guard = processes[0].parents()
    parent.kill()
    parent.wait()
    until(lambda: gone(processes), 5)
    assert guard


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_command_whose_guard_is_ended_ends_too(tmp_path: Path, number: signal.Signals):
    if number == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux ends a process with its parent")
    folder = tmp_path / "pids"
    folder.mkdir()
    quiet_child = FAMILY.replace("os.fork()", "signal.SIGUSR1") + "\n"  # a command without a child of its own
    words = guarded([sys.executable, "-c", quiet_child, str(folder)], grace=0.3)
    with subprocess.Popen(words, stdin=subprocess.PIPE) as guard:
        until(lambda: len(list(folder.iterdir())) == 1)
        command = psutil.Process(int(next(folder.iterdir()).name))
        guard.send_signal(number)
        assert guard.wait(10) == (-number if number == signal.SIGKILL else 128 + signal.SIGTERM)
    until(lambda: gone([command]), 5)


def test_workers_of_a_command_that_was_killed_end_too(tmp_path: Path):
    folder = tmp_path / "pids"
    folder.mkdir()
    processes: list[psutil.Process] = []

    def later():
        processes.extend(family(folder))
        parent = next(p for p in processes if p.children())
        parent.kill()

    threading.Thread(target=later).start()
    quiet_child = FAMILY.replace("signal.SIG_IGN", "signal.SIG_DFL")
    assert execute(tmp_path, quiet_child, folder) == 128 + signal.SIGKILL
    until(lambda: gone(processes), 5)


def test_two_commands_on_one_result_run_one_after_the_other(tmp_path: Path):
    code = "import sys, time\nprint('begin', flush=True)\ntime.sleep(0.3)\nprint('end', flush=True)"
    threads = [threading.Thread(target=execute, args=(tmp_path, code)) for _ in range(2)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line for line in lines if line in ("begin", "end")] == ["begin", "end", "begin", "end"]
    assert sum("waiting for it" in line for line in lines) == 1
