"""Training step by step through nnU-Net's own hooks, and what a step reports through nnU-Net's own logger.

What a trainer looks like inside is nothing to the tests that use this module.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

PREFIX = "ssl/"
RECORDED = ("loss_", "weight_")


def reported(trainer: Any, beginnings: tuple[str, ...] = RECORDED) -> dict[str, float]:
    """Terms (``loss_<term>``) and their weights (``weight_<term>``) of the epoch that has just ended, by name.

    Without those that no step of the epoch has observed.
    """
    values = {
        key.removeprefix(PREFIX): float(history[-1])
        for key, history in trainer.logger.local_logger.my_fantastic_logging.items()
        if key.startswith(PREFIX) and len(history) == trainer.current_epoch + 1
    }
    return {n: v for n, v in sorted(values.items()) if n.startswith(beginnings) and not math.isnan(v)}


def steps(trainer: Any, count: int) -> Iterator[dict[str, float]]:
    """What each of so many steps reports, beside ``total``. Epochs have as many steps as the settings say.

    The epoch ends after each step as far as its log is concerned, so that the means of the log are of one step.
    """
    trainer.on_train_start()
    for index in range(count):
        if index % trainer.num_iterations_per_epoch == 0:
            if index:
                trainer.current_epoch += 1
            trainer.on_epoch_start()
            trainer.on_train_epoch_start()
        output = trainer.train_step(next(trainer.dataloader_train))
        trainer.on_train_epoch_end([output])
        yield {"total": float(output["loss"]), **reported(trainer)}


def processor() -> str:
    """What decides how sums are rounded: the vector instructions, and the kind of CPU, whose kernels oneDNN chooses."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    kind = [line.split(":")[1].strip() for line in lines if line.split("\t")[0] in ("cpu family", "model", "stepping")]
    return " ".join([torch.backends.cpu.get_cpu_capability(), *(kind[:3] or [platform.machine()])])


def tolerance(recorded_on: str) -> dict[str, float]:
    """For pytest.approx. Another processor rounds otherwise, and small terms can be differences of numbers near 1."""
    return {"rel": 1e-6, "abs": 1e-9} if recorded_on == processor() else {"rel": 1e-4, "abs": 2e-7}
