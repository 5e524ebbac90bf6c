from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import torch

from nnunet_ssl.external import nnunet_ssl_trainers
from nnunet_ssl.trainers.dual_networks import nnUNetTrainerDualNetworks
from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_ssl.training.ramps import ENOUGH, EXCESS, START, WINDOW, Guard, sigmoid_rampup
from tests.running import SHORT, make_trainer, run_ranks
from tests.trainers.registered import NAMES, PRESETS

STEPS = {**SHORT, "num_epochs": 1, "num_iterations_per_epoch": 80}
ON = {"guard": True}


def looked(guard: Guard, labeled: list[float], pseudo: list[float], times: int = 1, steps: float = 100.0) -> float:
    for _ in range(times):
        guard.look(torch.tensor(labeled), torch.tensor(pseudo), steps)
    return guard.factor


# ---- closed form


def test_the_class_that_falls_short_most_decides():
    assert Guard().factor == 1.0  # nothing seen, nothing held
    assert looked(Guard(), [0.2, 0.1], [0.2, 0.1]) == 1.0
    assert looked(Guard(), [0.2, 0.1], [0.2, 0.004]) == pytest.approx(0.4)  # .004 of .01
    assert looked(Guard(), [0.2, 0.1], [0.0, 0.1]) == 0.0
    assert looked(Guard(), [0.2], [0.005]) == pytest.approx(0.25)
    assert looked(Guard(), [0.2, 0.0], [0.2, 0.0]) == 1.0  # no label shows the second
    assert looked(Guard(), [0.0], [0.0]) == 1.0


def test_shares_are_running_means():
    guard = Guard()
    looked(guard, [0.1], [0.1], 3)
    looked(guard, [0.4], [0.0])
    assert guard.state()["labeled"] == pytest.approx([0.175]) and guard.state()["pseudo"] == pytest.approx([0.075])
    looked(guard, [0.1], [0.1], 100)
    before = guard.state()["pseudo"][0]
    looked(guard, [0.1], [0.0], 1)
    assert guard.state()["pseudo"][0] == pytest.approx(before * (1 - 1 / WINDOW))  # now an exponential one
    long = Guard()
    looked(long, [0.1], [0.1], 1000, steps=25_000)
    looked(long, [0.1], [0.0], 1, steps=25_000)
    assert long.state()["pseudo"][0] == pytest.approx(0.1 * (1 - 1 / 250))  # a hundredth of the looks


def test_foreground_everywhere_at_first_is_soon_forgotten():
    guard = Guard()
    looked(guard, [0.01], [1.0])
    assert guard.state()["pseudo"] == pytest.approx([EXCESS * 0.01]) and guard.factor == 1.0
    assert looked(guard, [0.01], [0.0], 30) == pytest.approx(EXCESS / WINDOW * (1 - 1 / WINDOW) ** 21 / ENOUGH)
    assert looked(guard, [0.01], [0.01]) == 1.0  # one look at foreground is enough


def test_state():
    guard, other = Guard(), Guard()
    looked(guard, [0.2, 0.1], [0.1, 0.001], 3)
    other.load_state(guard.state())
    assert looked(guard, [0.1, 0.1], [0.1, 0.0]) == looked(other, [0.1, 0.1], [0.1, 0.0]) == pytest.approx(0.075)


def on_a_rank(rank: int, dataset: Path) -> tuple[float, dict]:
    guard = Guard()
    looked(guard, [0.1, 0.3 * rank], [0.1 * rank, 0.003 * rank])
    return guard.factor, guard.state()


def test_ranks_agree(tmp_path):
    first, second = run_ranks(on_a_rank, tmp_path, tmp_path)
    assert first == second
    assert first[0] == pytest.approx(0.1) and first[1]["labeled"] == pytest.approx([0.1, 0.15])


def test_the_start_takes_a_fiftieth_of_training_but_250_steps_at_least():
    assert START.at(0.01, 250_000) == sigmoid_rampup(0.5) and START.at(0.02, 250_000) == 1.0
    assert START.at(0.0625, 2000) == sigmoid_rampup(0.5) and START.at(0.125, 2000) == 1.0
    assert START.at(0.125, 100) == sigmoid_rampup(0.5) and START.at(0.25, 100) == 1.0  # a quarter at most


# ---- in training


def trained(trainer, shows_foreground, steps: int) -> list[float]:
    """Weights of the consistency, step by step, with a teacher that shows foreground in some steps alone."""
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    teacher, losses, weights = trainer.teacher, trainer.losses, []

    class Told:
        def __call__(self, image):
            logits = teacher(image)
            logits[:, 0] = 20.0
            if shows_foreground(trainer.step):
                logits[:, :, ::2] = torch.tensor([0.0, 5.0, 6.0]).view(1, 3, *[1] * (logits.ndim - 2))
                logits[:, 1, ::4] = 10.0
            return logits

        def __getattr__(self, name):
            return getattr(teacher, name)

    trainer.teacher = Told()

    def record(labeled, unlabeled):
        terms = losses(labeled, unlabeled)
        weights.append(terms.weights["consistency"])
        return terms

    trainer.losses = record
    for _ in range(steps):
        trainer.train_step(next(trainer.dataloader_train))
    return weights


def test_a_teacher_that_predicts_background_holds_the_weight_until_foreground_comes(make_dataset):
    trainer = make_trainer(make_dataset(), nnUNetTrainerMeanTeacher, "2d", training=STEPS, hyperparameters=ON)
    found = trained(trainer, lambda step: step >= 20, 25)
    assert found[0] > 0 and found[1:21] == [0.0] * 20  # looks are behind the steps 0, 10, 20
    ramps = [0.1 * sigmoid_rampup(i / 80) * sigmoid_rampup(i / 20) for i in range(21, 25)]
    assert found[21:] == pytest.approx(ramps)
    means = trainer.monitor.epoch_means()
    assert means["guard"] == pytest.approx((math.exp(-5) + 4) / 25)


def test_switched_off_it_is_not_there(make_dataset):
    trainer = make_trainer(
        make_dataset(), nnUNetTrainerMeanTeacher, "2d", training=STEPS, hyperparameters={"guard": False}
    )
    assert trained(trainer, lambda step: False, 12) == [0.1 * sigmoid_rampup(i / 80) for i in range(12)]
    assert "guard" not in trainer.monitor.epoch_means() and trainer.guard.state()["looks"] == 0


def test_it_is_logged_and_kept(make_dataset):
    dataset = make_dataset()
    trainer = make_trainer(dataset, nnUNetTrainerDualNetworks, "2d", hyperparameters=ON)
    trainer.run_training()
    table = pd.read_csv(Path(trainer.output_folder, "semi_supervised.csv"))
    assert table["guard"].between(0, 1).all()
    assert trainer.guard.state()["looks"] == 2  # the first step of each epoch
    again = make_trainer(dataset, nnUNetTrainerDualNetworks, "2d", hyperparameters=ON)
    again.load_checkpoint(str(Path(trainer.output_folder, "checkpoint_final.pth")))
    assert again.guard.state() == trainer.guard.state()


@pytest.mark.parametrize("name", NAMES)
def test_on_by_default_and_off_in_what_reproduces_publications(name):
    settings = getattr(nnunet_ssl_trainers, name).Hyperparameters()
    unlabeled = hasattr(settings, "unlabeled_batch_size")
    assert getattr(settings, "guard", None) == (name not in PRESETS if unlabeled else None)
