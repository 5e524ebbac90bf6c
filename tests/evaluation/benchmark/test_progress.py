"""What is shown while a benchmark runs, and what it is read from."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from nnunet_ssl.evaluation.benchmark.jobs import COMPLETE, FAILED, RUNNING, Stage, job_folder, log_path
from nnunet_ssl.evaluation.benchmark.progress import Board, Lines, LiveTable, display, duration
from nnunet_ssl.evaluation.benchmark.training_log import TrainingLog
from tests.evaluation.benchmark.test_jobs import JOB, record_of

STAMP = "2025-11-21 14:05:10.742669: "


@pytest.fixture
def jobs():
    from dataclasses import replace

    return [replace(JOB, fold=fold, epochs=20) for fold in range(4)]


@pytest.fixture
def board(tmp_path: Path, jobs) -> Board:
    """Job 0 was complete before, job 1 is in epoch 5 of 20, job 2 failed, job 3 waits."""
    board = Board(str(tmp_path), jobs, 1)
    board.found(jobs[0].id)
    Path(job_folder(str(tmp_path), jobs[1].id)).mkdir(parents=True)
    lines = [f"{STAMP}Epoch {e}\n{STAMP}Epoch time: 6.0 s\n" for e in range(5)]
    Path(log_path(str(tmp_path), jobs[1].id)).write_text("".join(lines))
    for job, state in ((jobs[1], RUNNING), (jobs[2], RUNNING), (jobs[2], FAILED)):
        board.changed(job.id, record_of(job, state=state, stages=[Stage("train", [], "2025")]))
    return board


def test_the_log_of_a_training_is_followed(tmp_path: Path):
    path = tmp_path / "log.txt"
    log = TrainingLog(str(path), 4)
    log.read()
    assert (log.done, log.seconds_left) == (0, None)
    path.write_text(f"{STAMP}Epoch 0\n{STAMP}Epoch time: 2.0 s\n{STAMP}Epoch 1\n{STAMP}Epoch ti")
    log.read()
    assert (log.done, log.seconds_left) == (1, 6.0)
    with path.open("a") as file:
        file.write(f"me: 4.0 s\n{STAMP}Epoch 2\n")
    log.read()
    assert (log.done, log.seconds_left, log.validating) == (2, 6.0, False)
    with path.open("a") as file:
        file.write(f"{STAMP}predicting hippocampus_017\n")
    log.read()
    assert log.validating
    path.write_text(f"{STAMP}Epoch 3\n")  # begun anew
    log.read()
    assert log.done == 3


def test_without_a_length_no_time_left_is_claimed(tmp_path: Path):
    (tmp_path / "log.txt").write_text(f"{STAMP}Epoch 0\n{STAMP}Epoch time: 2.0 s\n")
    log = TrainingLog(str(tmp_path / "log.txt"), None)
    log.read()
    assert (log.done, log.seconds_left) == (1, None)


@pytest.mark.parametrize(("seconds", "text"), [(3.4, "3 s"), (75, "1 min 15 s"), (3725, "1 h 02 min")])
def test_durations(seconds: float, text: str):
    assert duration(seconds) == text


def test_the_table_shows_state_epoch_and_time_left(board: Board):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=140, height=30, color_system=None)
    with LiveTable(board, console) as table:
        table.refresh()
    text = file.getvalue()
    rows = {line.split()[4]: line.split() for line in text.splitlines() if "Dataset004_X 2d T n6" in line}
    assert rows["fold1"][6:] == ["running", "train", "5/20", "1", "min", "30", "s"]
    assert rows["fold2"][6:] == ["failed"] and rows["fold3"][6:] == ["waiting"] and rows["fold0"][6:] == ["complete"]
    assert list(rows) == ["fold1", "fold2", "fold3", "fold0"]
    assert "1 running, 1 failed, 1 waiting, 1 complete; about" in text


def test_a_notebook_is_no_terminal(board: Board, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert Console().is_terminal and isinstance(display(board), Lines)


def test_a_low_terminal_shows_what_runs(board: Board):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=140, height=8, color_system=None)
    with LiveTable(board, console):
        pass
    assert "... and 2 more" in file.getvalue() and "fold0" not in file.getvalue()


def test_lines_for_a_log(tmp_path: Path, jobs, capsys):
    board = Board(str(tmp_path), jobs[:2], 1)
    board.found(jobs[0].id)
    with Lines(board) as lines:
        lines.refresh()
        board.changed(jobs[1].id, record_of(jobs[1], state=RUNNING))
        lines.refresh()
        lines.refresh()
        board.changed(jobs[1].id, record_of(jobs[1], state=COMPLETE))
    assert capsys.readouterr().out.splitlines() == [
        f"complete before, skipped: {jobs[0].id}   [1 waiting, 1 complete]",
        f"running: {jobs[1].id}   [1 running, 1 complete]",
        f"complete: {jobs[1].id}   [2 complete]",
    ]
