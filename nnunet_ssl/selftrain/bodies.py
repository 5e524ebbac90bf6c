"""The work of each kind of step."""

from __future__ import annotations

import sys
from collections.abc import Callable

from nnunet_ssl.selftrain import predict, student_dataset, train
from nnunet_ssl.selftrain.step_run import StepRun
from nnunet_ssl.selftrain.steps import CONTROL, DATASET, ENSEMBLE, FINETUNE, PREDICT, PREPROCESS, SELECT, TRAIN


def _select(step_run: StepRun) -> None:
    """In a process of its own, since reading images turns away what the whole process prints."""
    module = "nnunet_ssl.selftrain.selection.choose"
    words = [sys.executable, "-m", module, step_run.output, str(step_run.job.round)]
    step_run.command("select", words, step_run.lock("select"))


BODIES: dict[str, Callable[[StepRun], None]] = {
    TRAIN: train.train,
    FINETUNE: train.train,
    CONTROL: train.train,
    PREDICT: predict.predict,
    ENSEMBLE: predict.ensemble,
    SELECT: _select,
    DATASET: student_dataset.make,
    PREPROCESS: student_dataset.preprocess,
}
