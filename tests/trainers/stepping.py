"""Training step by step through nnU-Net's own hooks, and what a step reports through nnU-Net's own logger.

What a trainer looks like inside is nothing to the tests that use this module.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

PREFIX = "ssl/"
RECORDED = ("loss_", "weight_")


def reported(trainer: Any) -> dict[str, float]:
    """Terms (``loss_<term>``) and their weights (``weight_<term>``) of the epoch that has just ended, by name.

    Without those that no step of the epoch has observed.
    """
    values = {
        key.removeprefix(PREFIX): float(history[-1])
        for key, history in trainer.logger.local_logger.my_fantastic_logging.items()
        if key.startswith(PREFIX) and len(history) == trainer.current_epoch + 1
    }
    return {n: v for n, v in sorted(values.items()) if n.startswith(RECORDED) and not math.isnan(v)}


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
