"""What a step is said to need, from shapes alone, is what it needs."""

from __future__ import annotations

import pytest
import torch

from nnunet_ssl.planning.rehearsal import images_of, kinds_of_steps, rehearse
from nnunet_ssl.planning.stand_in import make_trainer, stand_in_folders, training_batch
from tests.live_memory import LiveMemory
from tests.planning.small_plan import DATASET_JSON, STOCK, small_plan, trainer_class
from tests.trainers.registered import NAMES


def measured(name: str) -> tuple[int, int]:
    """(peak of the bytes alive in the steps that are rehearsed, images of a step), on the CPU."""
    device, plans = torch.device("cpu"), small_plan(name)
    with stand_in_folders(plans, "2d"), torch.random.fork_rng(), LiveMemory() as memory:
        trainer = make_trainer(trainer_class(name), plans, "2d", DATASET_JSON, device)
        batch = training_batch(trainer, trainer.batch_size, device)
        trainer.train_step(batch)  # makes the optimiser's state
        for step in kinds_of_steps(trainer):
            trainer.step = step
            trainer.train_step(batch)
        return memory.peak, images_of(batch)


@pytest.mark.parametrize("name", [STOCK, *NAMES])
def test_memory_of_a_step_is_known_before_the_first_one(name):
    cost = rehearse(trainer_class(name), small_plan(name), "2d", DATASET_JSON, mixed_precision=False)
    peak, images = measured(name)
    print(name, peak, cost.peak / peak)
    assert cost.images == images
    assert cost.peak == pytest.approx(peak, rel=0.15)
