"""A run interrupted at an epoch boundary, or killed at any moment, continues."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nnunet_ssl.data.splits import Fold
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_ssl.trainers.supervised import nnUNetTrainerSupervised
from nnunet_ssl.training.checkpoint import random_state, set_random_state, write_atomically
from tests.running import FOLD, make_trainer, same_weights, seed_everything, weights, write_split
from tests.trainers.conformance import plain

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.mark.parametrize("before, after", [("student", "teacher"), ("teacher", "student")])
def test_networks_keep_their_roles_when_the_predicting_one_changes(make_dataset, before, after):
    dataset = make_dataset()
    first = make_trainer(dataset, nnUNetTrainerMeanTeacher, hyperparameters={"predict_with": before})
    first.run_training()
    second = make_trainer(dataset, nnUNetTrainerMeanTeacher, hyperparameters={"predict_with": after})
    second.load_checkpoint(str(Path(first.output_folder, "checkpoint_final.pth")))
    assert same_weights(weights(second.network), weights(first.network))
    assert same_weights(weights(second.auxiliary["teacher"]), weights(first.auxiliary["teacher"]))
    assert f"WARNING: predict_with was '{before}' before the resume" in Path(second.log_file).read_text()


def test_a_split_with_other_cases_is_refused_on_resume(make_dataset):
    dataset = make_dataset()
    write_split(dataset)
    first = make_trainer(dataset, nnUNetTrainerSupervised, split="n2")
    first.run_training()
    checkpoint = str(Path(first.output_folder, "checkpoint_final.pth"))
    make_trainer(dataset, nnUNetTrainerSupervised, split="n2").load_checkpoint(checkpoint)
    write_split(dataset, Fold(labeled=FOLD.val, unlabeled=FOLD.unlabeled, val=FOLD.labeled))
    with pytest.raises(SemiSupervisedError, match="has changed since this training began(.|\n)*splits_ssl.json back"):
        make_trainer(dataset, nnUNetTrainerSupervised, split="n2").load_checkpoint(checkpoint)


def test_a_checkpoint_of_a_later_version_is_refused(make_dataset):
    trainer = make_trainer(make_dataset(), nnUNetTrainerSupervised)
    trainer.initialize()
    with pytest.raises(SemiSupervisedError, match="format 99(.|\n)*Update the package: pip install"):
        trainer.load_extra_state({**trainer.extra_state(), "version": 99})


def test_checkpoint_of_another_trainer_is_refused(make_dataset):
    dataset = make_dataset()
    supervised = make_trainer(dataset, nnUNetTrainerSupervised)
    supervised.run_training()
    path = str(Path(supervised.output_folder, "checkpoint_final.pth"))
    with pytest.raises(SemiSupervisedError, match="checkpoint of nnUNetTrainerSupervised, not of nnUNetTrainerMean"):
        make_trainer(dataset, nnUNetTrainerMeanTeacher).load_checkpoint(path)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path):
    target = tmp_path / "checkpoint_latest.pth"
    write_atomically({"epoch": 1}, str(target))

    class Unwritable:
        def __reduce__(self):
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_atomically({"epoch": 2, "bad": Unwritable()}, str(target))
    assert torch.load(target) == {"epoch": 1}


def test_random_state_round_trip():
    import numpy as np

    seed_everything(3)
    random.random(), np.random.normal(), torch.rand(1)
    state = random_state(torch.device("cpu"))
    assert plain(state)
    first = (random.random(), np.random.normal(), np.random.normal(), torch.rand(3).tolist())
    set_random_state(state, torch.device("cpu"))
    assert first == (random.random(), np.random.normal(), np.random.normal(), torch.rand(3).tolist())


# One process imports everything and forks the training runs, since the imports take far longer than an epoch.
KILL_TEN_TIMES = """
import multiprocessing
import random
import sys
import time
from pathlib import Path

import torch

torch.set_num_threads(1)
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from tests.running import make_trainer

SETTINGS = {"num_epochs": 100000, "num_iterations_per_epoch": 1, "num_val_iterations_per_epoch": 1, "save_every": 1,
            "optimizer": "adamw"}


def train(queue):
    trainer = make_trainer(Path(sys.argv[1]), nnUNetTrainerMeanTeacher, training=SETTINGS)
    trainer.logger.plot_progress_png = lambda folder: None  # takes a second, the checkpoint milliseconds
    maybe_load_checkpoint(trainer, True, False)
    queue.put(trainer.current_epoch)
    trainer.run_training()


generator = random.Random(0)
context = multiprocessing.get_context("fork")
for _ in range(10):
    queue = context.SimpleQueue()
    process = context.Process(target=train, args=(queue,))
    process.start()
    try:
        while queue.empty():
            assert process.is_alive(), "training did not start"
            time.sleep(0.01)
        with open(sys.argv[3], "a") as starts:  # not stdout, where a killed training can leave half a line
            print(queue.get(), file=starts)
        time.sleep(generator.uniform(0.3, 2.0))
    finally:
        process.kill()
        process.join()
    assert process.exitcode == -9, process.exitcode
    for checkpoint in Path(sys.argv[2]).rglob("checkpoint_*.pth"):
        assert "nnunet_ssl" in torch.load(checkpoint, weights_only=False)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random_moments_training_always_continues(make_dataset):
    dataset = make_dataset()
    script = dataset.parent / "kill.py"
    script.write_text(KILL_TEN_TIMES)
    log = dataset.parent / "starts.txt"
    done = subprocess.run(
        [sys.executable, str(script), str(dataset), str(dataset.parents[1] / "nnUNet_results"), str(log)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    starts = [int(line) for line in log.read_text().splitlines()]
    assert len(starts) == 10
    assert starts[0] == 0
    assert starts == sorted(starts)
    assert starts[-1] > starts[0]
