"""A self-training on a tiny dataset whose nnU-Net commands are played by fake_nnunet.py."""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_ssl.commands import selftrain
from nnunet_ssl.selftrain import bodies
from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.selection.choose import choose
from nnunet_ssl.selftrain.settings import read_settings
from nnunet_ssl.selftrain.step_run import StepRun
from nnunet_ssl.selftrain.steps import SELECT
from tests.evaluation.benchmark.fakes import quick_evaluation, write_checkpoint
from tests.running import write_split
from tests.selftrain import fake_nnunet
from tests.tiny import DATASET, Tiny, case_arrays, write_image

TRAINING = ("--training", "num_epochs=2", "num_iterations_per_epoch=10")
WORDS = ("-d", "901", "-c", "3d_fullres", "--split", "n2", "-device", "cpu", "--n-teachers", "2", *TRAINING)


@dataclass(frozen=True)
class Place:
    """The folders of a run with fakes. ``base``: nnUNet_preprocessed/DATASET."""

    root: Path
    base: Path

    @property
    def out(self) -> Path:
        return self.root / "out"

    @property
    def raw(self) -> Path:
        return self.root / "nnUNet_raw" / DATASET

    def order(self, command: str, text: str | None) -> None:
        """Tell a fake command to "fail" or to "wait"; None: to behave."""
        file = self.root / "orders" / command
        file.parent.mkdir(exist_ok=True)
        file.unlink(missing_ok=True) if text is None else file.write_text(text)

    def calls(self) -> list[str]:
        """The lines of the commands so far."""
        file = self.root / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def settled(self) -> Run:
        """The run as OUT/selftrain.json has it."""
        return Run(str(self.out), read_settings(str(self.out)))

    def record(self, step_id: str) -> dict[str, Any]:
        file = self.out / "jobs" / step_id / "record.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def state(self, step_id: str) -> str:
        return str(self.record(step_id).get("state", "waiting"))


def make_place(base: Path) -> Place:
    """Beside the dataset: the references of imagesUn for the fake predictions, a checkpoint, the split n2."""
    root = base.parents[1]
    write_split(base)
    write_checkpoint(root / "checkpoint_final.pth")
    for index, image in enumerate(sorted((root / "nnUNet_raw" / DATASET / "imagesUn").iterdir())):
        _, label = case_arrays(Tiny(), 1000 + index)
        write_image(label, root / "hidden" / image.name.replace("_0000", ""), (1.0, 1.0, 1.0))
    return Place(root, base)


def install(patch: Callable[[object, str, object], None] = setattr) -> None:
    """Fake commands, a quick evaluation, and the selection, all in this process."""
    from nnunet_ssl.evaluation.benchmark import evaluator, job_run, run_local

    patch(job_run, "find_command", lambda name: name)
    patch(job_run, "run_command", command_here)
    patch(evaluator.Evaluator, "evaluate", lambda self, task, log, stop: quick_evaluation(task))
    patch(run_local, "REFRESH", 0.02)
    patch(selftrain, "write_report", lambda run: "report")
    patch(bodies, "BODIES", {**bodies.BODIES, SELECT: select_here})


def command_here(command: Sequence[str], log: str, *_: object) -> int:
    """In place of a process for each command, which would take most of a test's time."""
    root = Path(os.environ["nnUNet_results"]).parent
    with open(root / "calls", "a") as calls:
        calls.write(" ".join(command) + "\n")
    try:
        fake_nnunet.COMMANDS[command[0]](*command[1:])
    except SystemExit as end:
        with open(log, "a") as file:
            file.write(f"{end}\n")
        return 1
    return 0


def select_here(step: StepRun) -> None:
    """The selection without a process of its own, whose imports would take longer than all the rest."""
    with step.stage("select", ["select"]):
        choose(step.run_of, step.job.round, 1)


def run(place: Place, *words: str) -> int:
    """The command in this process."""
    parser = argparse.ArgumentParser()
    selftrain.add_arguments(parser)
    return selftrain.run(parser.parse_args([*words, "-o", str(place.out)]))


def run_and_kill(place: Place, words: tuple[str, ...], moment: Callable[[], bool]) -> None:
    """The command in a fork of this process, killed with SIGKILL at a moment."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 1
        try:
            code = run(place, *words)
        finally:
            os._exit(code)
    end = time.monotonic() + 60
    while not moment():
        ended, status = os.waitpid(child, os.WNOHANG)
        assert not ended, f"ended with {status} before the moment came"
        assert time.monotonic() < end
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
