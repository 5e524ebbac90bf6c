import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunet_ssl.data.workers import Workers
from nnunet_ssl.errors import SemiSupervisedError


def square(number: int) -> int:
    return number * number


def die_on_two(number: int) -> int:
    if number == 2:
        os._exit(1)
    time.sleep(0.05)
    return number


@pytest.mark.parametrize("processes", [1, 2])
def test_results_in_the_order_of_the_tasks(processes):
    with Workers(processes) as workers:
        results = workers.map(square, {str(n): (n,) for n in (3, 1, 2)}, "squares")
        assert workers.map(square, {}, "nothing") == {}
    assert list(results.items()) == [("3", 9), ("1", 1), ("2", 4)]


def test_a_dying_worker_is_an_error_with_the_unfinished_tasks():
    with Workers(2) as workers, pytest.raises(SemiSupervisedError, match=r"worker process died(.|\n)*- two(.|\n)*-np"):
        workers.map(die_on_two, {"one": (1,), "two": (2,)}, "tasks")


def test_exceptions_pass():
    with Workers(1) as workers, pytest.raises(TypeError):
        workers.map(square, {"a": ("text",)}, "squares")


def refuse_or_write(path: str) -> None:
    if path == "":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    Path(path).write_text("begun")
    time.sleep(1)
    Path(path).write_text("finished")


def test_an_error_waits_for_the_tasks_in_progress(tmp_path):
    """Files are tidied up after it; nobody may be writing any more."""
    tasks = {"begun": (str(tmp_path / "a"),), "refused": ("",), **{str(n): (str(tmp_path / f"{n}"),) for n in range(9)}}
    with Workers(2) as workers, pytest.raises(OSError, match="No space left"):
        try:
            workers.map(refuse_or_write, tasks, "tasks")
        finally:
            written = [path.read_text() for path in tmp_path.iterdir()]
    assert written and set(written) == {"finished"} and len(written) < 9


def test_at_least_one():
    with pytest.raises(SemiSupervisedError, match="at least 1, got 0"):
        Workers(0)


PARENT = """
import os, sys, time
from nnunet_ssl.data.workers import Workers
def main():
    with Workers(2) as workers:
        print(*{p for p in workers.map(os.getpid, {str(n): () for n in range(20)}, "").values()}, flush=True)
        time.sleep(60)
if __name__ == "__main__":
    main()
"""


def test_workers_end_with_a_killed_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert workers
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.05)


INTERRUPTED = """
import os, signal, sys, time
from nnunet_ssl.data.workers import Workers

def work(folder, name):
    open(os.path.join(folder, name), "w").close()
    time.sleep(60)

def main(folder):
    try:
        with Workers(2) as workers:
            print("ready", flush=True)
            workers.map(work, {str(n): (folder, str(n)) for n in range(20)}, "")
    except KeyboardInterrupt:
        sys.exit(130)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
    main(sys.argv[1])
"""


@pytest.mark.parametrize("when", ["processes start", "processes work"])
def test_interrupts_end_everything_at_once_and_without_tracebacks(tmp_path, when):
    script, folder = tmp_path / "parent.py", tmp_path / "started"
    script.write_text(INTERRUPTED)
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), str(folder)]
    # a session of its own: as a terminal does, the signal goes to the parent and its workers alike
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, start_new_session=True, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 60
        while len(list(folder.iterdir())) < 2 and when == "processes work":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        start = time.monotonic()
        while parent.poll() is None and time.monotonic() < start + 30:  # once is enough, twice must not hang
            os.killpg(parent.pid, signal.SIGINT)
            time.sleep(0.3)
        ended = parent.poll()
        if ended is None:
            os.killpg(parent.pid, signal.SIGKILL)
        errors = parent.stderr.read() if parent.stderr is not None else ""
    assert ended == 130, errors
    assert "Traceback" not in errors
    deadline = time.monotonic() + 10
    while members := alive_in_group(parent.pid):
        assert time.monotonic() < deadline, members
        time.sleep(0.05)


def alive_in_group(group: int) -> list[str]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            state, _, its_group = stat.read_text().rsplit(")", 1)[1].split()[:3]
            if state != "Z" and int(its_group) == group:
                found.append(stat.parent.name)
    return found


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
