"""One step while it runs in this process."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nnunetv2.configuration import default_num_processes

from nnunet_ssl.evaluation.benchmark.job_run import JobRun
from nnunet_ssl.evaluation.benchmark.results import fold_folder
from nnunet_ssl.selftrain.keys import Keys, preprocessed_folder
from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.steps import ENSEMBLE, PREDICT, PREPROCESS, TRAININGS, Step


class StepRun(JobRun):
    """A job of a self-training.

    Args:
        run: of which it is a step.
        bodies: kind of a step -> its work.
        output, job, ...: see :class:`JobRun`; the job is a :class:`Step`.
    """

    job: Step

    def __init__(
        self, run: Run, bodies: Mapping[str, Callable[[StepRun], None]], *arguments: Any, **options: Any
    ) -> None:
        self.run_of, self.bodies, self.keys = run, bodies, Keys(run)
        super().__init__(*arguments, **options)

    def work(self) -> None:
        self.bodies[self.job.kind](self)

    def description(self) -> dict[str, Any]:
        step = self.job
        key = self.keys.key(step)
        assert key is not None  # its prerequisites are complete
        return {
            "job": {"kind": step.kind, "round": step.round, "member": step.member},
            "settings": dataclasses.asdict(self.run_of.settings),
            "settings_sha256": key,
            "test": None,
            "results_folder": fold_folder(self.keys.training(step)) if step.kind in TRAININGS else "",
        }

    def forget(self) -> None:
        """What the step left when it was made from something else; trainings stay where nnU-Net put them."""
        for path in (*Path(self.folder).glob("evaluation.*"), Path(self.log)):
            path.unlink(missing_ok=True)
        run, step = self.run_of, self.job
        if step.kind == PREDICT:
            shutil.rmtree(run.teacher_folder(step.round, step.member or 0), ignore_errors=True)
        elif step.kind == ENSEMBLE:
            shutil.rmtree(run.ensemble_folder(step.round), ignore_errors=True)
        elif step.kind == PREPROCESS:
            shutil.rmtree(preprocessed_folder(run, step.round), ignore_errors=True)

    @property
    def processes(self) -> str:
        """How many of nnU-Net's commands for data may use."""
        return self.environment.get("nnUNet_def_n_proc", str(default_num_processes))

    def lock(self, name: str) -> str:
        """File on which a command of this step keeps others away."""
        return os.path.join(self.folder, f".{name}.lock")
