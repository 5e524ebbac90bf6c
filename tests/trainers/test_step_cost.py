"""Of every trainer: a step waits for the device once, and its memory is known from the shapes of its tensors."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from nnunet_ssl.planning import rehearsal
from nnunet_ssl.planning.rehearsal import StepCost, images_of, kinds_of_steps, rehearse
from nnunet_ssl.planning.shapes_alone import META
from nnunet_ssl.planning.stand_in import make_trainer, stand_in_folders, training_batch
from tests.live_memory import LiveMemory
from tests.planning.small_plan import DATASET_JSON, STOCK, small_plan, trainer_class
from tests.trainers.host_looks import NoWaiting, without_waiting
from tests.trainers.registered import NAMES, PRESETS

LOOKS = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "bool": lambda x: bool(x.sum()),
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 0),
    "unique": lambda x: x.unique(),
    "equal": lambda x: torch.equal(x, x),
    "to the host": lambda x: x.to("cpu"),
    "copied to the host": lambda x: torch.zeros(3).copy_(x),
    "boolean index": lambda x: x[x > 0],
    "boolean index written to": lambda x: x.index_put_((x > 0,), x),
    "from the host": lambda x: torch.zeros(3).to(x.device),
}

ALONE = ("", "Supervised", "UXNet", "CMAformerSupervised")  # nnU-Net's own step


@cache
def rehearsed(name: str, configuration: str = "2d") -> StepCost:
    """In float32, as :func:`measured`; an error where a step waits."""
    trainer = trainer_class(name) if name == STOCK else without_waiting(trainer_class(name))
    return rehearse(trainer, small_plan(name, **options(name)), configuration, DATASET_JSON, mixed_precision=False)


def options(name: str) -> dict[str, int]:
    """Looks at the pull of each term take most of the time; a few trainers have them, of one term and of many."""
    looking = ("MeanTeacher", "CPS", "SKCDF", "LDC", "DualNetworks")
    return {} if name.removeprefix(STOCK) in (*looking, *ALONE) else {"pull_looks": 0}


def measured(name: str, configuration: str = "2d", **further: bool) -> tuple[int, int]:
    """(peak of the bytes alive in the steps that are rehearsed, images of a step), on the CPU."""
    device, plans = torch.device("cpu"), small_plan(name, **options(name), **further)
    with stand_in_folders(plans, configuration), torch.random.fork_rng(), LiveMemory() as memory:
        trainer = make_trainer(trainer_class(name), plans, configuration, DATASET_JSON, device)
        batch = training_batch(trainer, trainer.batch_size, device)
        trainer.train_step(batch)  # makes the optimiser's state
        for step in kinds_of_steps(trainer)[:-1]:
            trainer.step = step
            trainer.train_step(batch)
        return memory.peak, images_of(batch)


@pytest.mark.parametrize("look", LOOKS)
def test_looks_fail_on_this_device(look):
    with NoWaiting(), pytest.raises((AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError)):
        LOOKS[look](torch.empty(3, device=META))


@pytest.mark.parametrize("name", NAMES)
def test_a_step_waits_for_its_loss_alone(name):
    assert rehearsed(name).reads == 1


@pytest.mark.parametrize("guard", [False, True])
def test_the_guard_reads_once_more_in_a_step_that_is_observed(monkeypatch, guard):
    kind: Any = without_waiting(trainer_class("nnUNetTrainerMeanTeacher"))

    def train_step(self: Any, batch: dict[str, Any]) -> dict[str, Any]:
        self.hyperparameters = replace(self.hyperparameters, guard=guard)
        return kind.train_step(self, batch)

    guarded = type(kind.__name__, (kind,), {"train_step": train_step})
    monkeypatch.setattr(rehearsal, "kinds_of_steps", lambda trainer: [0])
    cost = rehearse(guarded, small_plan(kind.__name__), "2d", DATASET_JSON, mixed_precision=False)
    assert cost.reads == (2 if guard else 1)


@pytest.mark.parametrize("name", [STOCK, *(name for name in NAMES if name not in PRESETS)])
def test_memory_of_a_step_is_known_before_the_first_one(name):
    peak, images = measured(name)
    assert rehearsed(name).images == images
    assert rehearsed(name).peak == pytest.approx(peak, rel=0.15)


def test_memory_is_known_where_activations_are_computed_again():
    """As DKUXNet does on a GPU."""
    name = "nnUNetTrainerDKUXNet"
    plans = small_plan(name, **options(name), recompute=True)
    again = rehearse(trainer_class(name), plans, "2d", DATASET_JSON, mixed_precision=False).peak
    assert again < 0.75 * rehearsed(name).peak
    assert again == pytest.approx(measured(name, recompute=True)[0], rel=0.15)
