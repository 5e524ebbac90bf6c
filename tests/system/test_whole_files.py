"""Files appear whole or not at all, also where the disk is full and where two processes write the same one."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from nnunet_ssl.data.folders import write_json
from nnunet_ssl.evaluation.scoring.results import Evaluation
from nnunet_ssl.system.failures import SystemFailure
from nnunet_ssl.system.whole_files import remove_unfinished, whole_file, write_whole
from nnunet_ssl.training.checkpoint import write_atomically
from nnunet_ssl.training.curves import draw_png, write_csv
from tests.full_disk import small_disk

LONG = pd.DataFrame({"epoch": range(50_000), "loss_a": np.random.default_rng(0).random(50_000)})
NOISE = {"weights": torch.rand(500_000, generator=torch.Generator().manual_seed(0))}
EVALUATION = Evaluation("reference", "prediction", "mm", 1.0, [], [])

WRITERS = {
    "checkpoint": lambda folder: write_atomically(NOISE, str(folder / "checkpoint_latest.pth")),
    "csv": lambda folder: write_csv(LONG, str(folder)),
    "png": lambda folder: draw_png(LONG[:2], str(folder)),
    "json": lambda folder: write_json(str(folder / "splits_ssl.json"), {"a": LONG["loss_a"].tolist()}),
    "bytes": lambda folder: write_whole(folder / "report.html", bytes(500_000)),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_file_system(tmp_path, writer):
    with small_disk(tmp_path, 16):
        with pytest.raises(SystemFailure) as caught:
            WRITERS[writer](tmp_path)
        assert str(caught.value).startswith(f"No space left in {tmp_path}.\n")
        assert list(tmp_path.iterdir()) == [], "nothing half-written stays"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("writer", ["checkpoint", "csv", "bytes", "evaluation"])
def test_what_is_told_when_the_data_reach_the_disk(tmp_path, monkeypatch, writer, number):
    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SystemFailure, match=str(tmp_path)) as caught:
        (WRITERS | {"evaluation": lambda folder: EVALUATION.write(str(folder))})[writer](tmp_path)
    assert caught.value.errno == number
    assert list(tmp_path.iterdir()) == []


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "other").write_text("")
    write_whole(tmp_path / "a", b"text")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_writers_of_one_file_never_share_a_name(tmp_path):
    """Two threads are between writing and renaming at the same time; two computers may have equal process ids."""
    barrier = threading.Barrier(2)

    def write(content: bytes) -> None:
        with whole_file(tmp_path / "a") as temporary:
            barrier.wait(10)
            Path(temporary).write_bytes(content)
            barrier.wait(10)

    threads = [threading.Thread(target=write, args=(bytes([n]) * 10,)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_bytes() in (bytes([1]) * 10, bytes([2]) * 10)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_what_a_killed_writer_leaves_is_removed(tmp_path):
    (tmp_path / "checkpoint_best.pth").write_bytes(b"old")
    (tmp_path / "notes.tmp").write_bytes(b"of somebody else")

    def write() -> None:
        with whole_file(tmp_path / "checkpoint_best.pth") as temporary:
            Path(temporary).write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=write)
    process.start()
    process.join()
    assert len(list(tmp_path.iterdir())) == 3
    remove_unfinished(str(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint_best.pth", "notes.tmp"]
    assert (tmp_path / "checkpoint_best.pth").read_bytes() == b"old"
