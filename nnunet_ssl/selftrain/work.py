"""What the benchmark's runners must know of the steps of one self-training."""

from __future__ import annotations

from functools import partial

from nnunet_ssl.evaluation.benchmark.work import Work
from nnunet_ssl.selftrain import bodies
from nnunet_ssl.selftrain.board import RoundsBoard
from nnunet_ssl.selftrain.keys import Keys
from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.step_run import StepRun

COMMAND = "selftrain"


def work_of(run: Run) -> Work:
    """The kind of jobs that are the steps of this run."""
    return Work(
        COMMAND,
        lambda output, step: Keys(run).is_complete(step),
        partial(StepRun, run, bodies.BODIES),
        partial(RoundsBoard, run),
        lambda step: step.after,
        "nnunet_ssl selftrain -o {output}",
    )
