"""One training at a time in an output folder."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.system import run_lock
from nnunet_ssl.system.run_lock import LOCK, alone_in, refuse_if_running
from nnunet_ssl.trainers import TRAINERS, find_trainer
from nnunet_ssl.training.configured import nnUNetTrainerConfigured
from tests.running import make_trainer
from tests.waiting import until

pytestmark = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "LOOK", 0.02)
    monkeypatch.setattr(run_lock, "SILENCE", 0.5)


def hold(folder: str, ready) -> None:
    """In another process: train until killed."""
    with alone_in(folder):
        ready.set()
        time.sleep(600)


@contextmanager
def another_training(folder: Path):
    """A process that holds the folder; killed with SIGKILL at the end."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=hold, args=(str(folder), ready))
    process.start()
    try:
        assert ready.wait(30)
        yield process
    finally:
        process.kill()
        process.join()


def write_lock(folder: Path, **changes: object) -> Path:
    (folder / LOCK).write_text(json.dumps(asdict(replace(run_lock._this_process(), **changes))))
    return folder / LOCK


def test_a_second_training_is_refused_and_a_killed_one_is_followed(tmp_path, capsys):
    folder = tmp_path / "fold_0"
    with another_training(folder) as first:
        for start in (refuse_if_running, lambda path: alone_in(path).__enter__()):
            with pytest.raises(SemiSupervisedError) as caught:
                start(str(folder))
            assert f"{folder} is in use" in str(caught.value)
            assert f"process {first.pid} on {os.uname().nodename}, since " in str(caught.value)
            assert "Wait for it, or end it there." in str(caught.value)
    assert (folder / LOCK).exists()
    refuse_if_running(str(folder))
    assert (folder / LOCK).exists(), "looking changes nothing"
    (folder / "checkpoint_best.pth.0123456789ab.tmp").write_text("half")
    with alone_in(str(folder)):
        assert json.loads((folder / LOCK).read_text())["pid"] == os.getpid()
        assert [p.name for p in folder.iterdir()] == [LOCK], "unfinished files of the killed one are gone"
    assert f"taken over from process {first.pid} on" in capsys.readouterr().out
    assert list(folder.iterdir()) == []


def test_the_lock_goes_with_an_error_and_blocks_nest(tmp_path):
    with pytest.raises(ZeroDivisionError), alone_in(str(tmp_path)):
        with alone_in(str(tmp_path)):
            refuse_if_running(str(tmp_path))
        assert (tmp_path / LOCK).exists()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_folder_belongs_is_left_to_nnunet(tmp_path):
    (tmp_path / "fold_0").touch()
    refuse_if_running(str(tmp_path / "fold_0"))
    with pytest.raises(FileExistsError), alone_in(str(tmp_path / "fold_0")):
        pass


def test_process_ids_are_used_again(tmp_path):
    """A living process has the id, but it started at another time."""
    write_lock(tmp_path, pid=os.getppid(), started=1.0)
    with alone_in(str(tmp_path)):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("scope", ["other-host", "this host before it was started again"])
def test_another_host_is_believed_to_live_while_it_gives_signs(tmp_path, scope):
    path, stop = write_lock(tmp_path, host="other-host", pid=4711, scope=scope), threading.Event()

    def beat() -> None:
        while not stop.wait(0.1):
            os.utime(path)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(SemiSupervisedError) as caught, alone_in(str(tmp_path)):
            pass
    finally:
        stop.set()
        thread.join()
    assert "process 4711 on other-host" in str(caught.value)
    assert f"delete {path}" in str(caught.value) and "taken over 0 s after" in str(caught.value)


@pytest.mark.parametrize("age", [0, 3600])
def test_a_silent_host_is_dead(tmp_path, age):
    """As after a job was requeued on another host: no file need be deleted by hand, old locks do not even wait."""
    path = write_lock(tmp_path, host="other-host", scope="other-host")
    os.utime(path, (time.time() - age,) * 2)
    start = time.monotonic()
    with alone_in(str(tmp_path)):
        waited = time.monotonic() - start
    assert waited < 0.4 if age else 0.4 < waited < 10


def test_a_lock_that_cannot_be_read_is_watched_like_that_of_another_host(tmp_path):
    (tmp_path / LOCK).write_text("{")
    with alone_in(str(tmp_path)):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "BEAT", 0.05)
    with alone_in(str(tmp_path)):
        first = (tmp_path / LOCK).stat().st_mtime_ns
        until(lambda: (tmp_path / LOCK).stat().st_mtime_ns > first)
        (tmp_path / LOCK).unlink()  # as the advice says, by somebody who was wrong
        until((tmp_path / LOCK).exists)


def test_a_network_that_fails_for_a_moment_does_not_end_the_signs(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "BEAT", 0.05)
    failed = threading.Event()

    def fail_once(path: str):
        if not failed.is_set():
            failed.set()
            raise OSError(116, "Stale file handle")
        return read(path)

    read = run_lock._read
    with alone_in(str(tmp_path)):
        first = (tmp_path / LOCK).stat().st_mtime_ns
        monkeypatch.setattr(run_lock, "_read", fail_once)
        until(lambda: failed.is_set() and (tmp_path / LOCK).stat().st_mtime_ns > first)


def test_a_training_that_was_taken_for_dead_ends(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run_lock, "BEAT", 0.05)
    ended = threading.Event()
    monkeypatch.setattr(run_lock, "interrupt_main", ended.set)
    with alone_in(str(tmp_path)):
        write_lock(tmp_path, host="other-host", pid=4711, scope="other-host")
        assert ended.wait(10)
    assert "is held by process 4711 on other-host now" in capsys.readouterr().err
    assert (tmp_path / LOCK).exists(), "it belongs to the other"


def attempt(folder: str, start, log: str) -> None:
    start.wait()
    try:
        with alone_in(folder), open(log, "a") as file:
            print("in", file=file, flush=True)
            time.sleep(0.5)
            print("out", file=file, flush=True)
    except SemiSupervisedError:
        pass


def test_of_many_that_find_a_dead_lock_one_takes_it_at_a_time(tmp_path):
    folder = tmp_path / "fold_0"
    with another_training(folder):
        pass
    context = multiprocessing.get_context("fork")
    start = context.Event()
    processes = [context.Process(target=attempt, args=(str(folder), start, str(tmp_path / "log"))) for _ in range(6)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join()
    lines = (tmp_path / "log").read_text().split()
    assert lines and lines == ["in", "out"] * (len(lines) // 2)


def test_who_comes_late_to_a_dead_lock_does_not_touch_the_next_one(tmp_path):
    """It has seen the dead lock, and another process has taken that over since."""
    path = write_lock(tmp_path, pid=2**22 + 1)
    dead = run_lock._refuse_if_alive(str(path))
    path.unlink()
    write_lock(tmp_path, pid=os.getppid(), started=1.0)
    before = path.stat().st_ino, path.stat().st_ctime_ns  # a file moved away and back has another ctime
    run_lock._remove_dead(str(path), dead, run_lock._this_process())
    assert (path.stat().st_ino, path.stat().st_ctime_ns) == before
    assert [p.name for p in tmp_path.iterdir()] == [LOCK]


def test_a_dead_lock_is_taken_over_by_one_that_was_killed_and_then_by_another(tmp_path, capsys):
    """A process killed while it takes a dead lock over leaves a dead claim to it."""
    path = write_lock(tmp_path, pid=2**22 + 1)
    dead = run_lock._refuse_if_alive(str(path))

    def die(*_: object) -> None:
        os._exit(9)

    if (child := os.fork()) == 0:
        run_lock.os.remove = die
        run_lock._remove_dead(str(path), dead, run_lock._this_process())
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 2, "the lock and the claim"
    with alone_in(str(tmp_path)):
        assert [p.name for p in tmp_path.iterdir()] == [LOCK]
    assert f"{path}: taken over from process {2**22 + 1}" in capsys.readouterr().out


# ---- trainers


@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_trainer_has_it(trainer):
    found = find_trainer(trainer)
    assert issubclass(found, nnUNetTrainerConfigured)
    assert found.run_training is nnUNetTrainerConfigured.run_training


@pytest.mark.parametrize("trainer", ["nnUNetTrainerSupervised", "nnUNetTrainerMeanTeacher"])
def test_a_trainer_is_refused_before_it_touches_the_folder(make_dataset, trainer):
    dataset = make_dataset(unlabeled=0)
    first = make_trainer(dataset, find_trainer(trainer))
    first.initialize()
    folder = Path(first.output_folder)
    with another_training(folder) as other:
        before = sorted((p.name, p.stat().st_mtime_ns) for p in folder.iterdir())
        for start in (
            lambda: make_trainer(dataset, find_trainer(trainer)),
            first.run_training,
            first.perform_actual_validation,  # --val
        ):
            with pytest.raises(SemiSupervisedError, match=f"process {other.pid} on"):
                start()
        assert sorted((p.name, p.stat().st_mtime_ns) for p in folder.iterdir()) == before
        make_trainer(dataset, find_trainer(trainer), fold=1)  # another folder


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_rank_holds_the_lock_for_all(make_dataset, monkeypatch, rank):
    trainer = make_trainer(make_dataset(unlabeled=0), find_trainer("nnUNetTrainerSupervised"))
    trainer.local_rank = rank
    lock, seen = Path(trainer.output_folder, LOCK), []
    monkeypatch.setattr(nnUNetTrainer, "run_training", lambda self: seen.append(lock.exists()))
    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", lambda self, save: seen.append(lock.exists()))
    trainer.run_training()
    trainer.perform_actual_validation()
    assert seen == [rank == 0, rank == 0]
    assert not lock.exists()


def test_a_signal_that_python_turns_into_an_exception_releases_it(tmp_path):
    with another_training(tmp_path) as process:
        os.kill(process.pid, signal.SIGINT)
        process.join(10)
    assert list(tmp_path.iterdir()) == []
