"""Nothing of a training that is killed goes on."""

from __future__ import annotations

import multiprocessing
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from nnunet_ssl.cli import main
from nnunet_ssl.console import find_command
from nnunet_ssl.discovery import register
from nnunet_ssl.trainers import find_trainer
from tests.running import make_trainer
from tests.waiting import gone, until

CONTROL, SEMI_SUPERVISED = "nnUNetTrainerSupervised", "nnUNetTrainerMeanTeacher"


def load(dataset: Path, trainer: str, loaded) -> None:
    """In another process: the loaders of a training, whose workers wait for somebody to take their batches."""
    made = make_trainer(dataset, find_trainer(trainer))
    made.initialize()
    loaders = made.get_dataloaders()
    loaded.set()
    time.sleep(600)
    del loaders


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.parametrize("trainer", [CONTROL, SEMI_SUPERVISED])
def test_loading_workers_end_with_the_training(make_dataset, monkeypatch, trainer):
    dataset = make_dataset()
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    context = multiprocessing.get_context("fork")
    loaded = context.Event()
    process = context.Process(target=load, args=(dataset, trainer, loaded))
    process.start()
    try:
        until(lambda: loaded.is_set() or not process.is_alive())
        workers = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.join()
    assert len(workers) == 3, "two for training, one for validation"
    until(lambda: gone(workers), 10)


@pytest.mark.slow
def test_nothing_of_nnunetv2_train_outlives_sigkill(make_dataset, monkeypatch):
    dataset = make_dataset()
    assert main(["plans", "-d", "901", "--name", "long", "--training", "num_epochs=100000"]) == 0
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    register()
    words = [find_command("nnUNetv2_train"), "901", "3d_fullres", "all", "-tr", SEMI_SUPERVISED, "-p", "long"]
    with open(dataset / "log.txt", "w") as log, subprocess.Popen([*words, "-device", "cpu"], stdout=log) as training:
        try:
            until(lambda: "Epoch 0" in (dataset / "log.txt").read_text() or training.poll() is not None, 300)
            assert training.poll() is None, (dataset / "log.txt").read_text()
            workers = psutil.Process(training.pid).children(recursive=True)
        finally:
            training.kill()
    assert len(workers) == 3
    until(lambda: gone(workers), 10)
