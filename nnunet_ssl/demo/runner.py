"""Runs the demo: writes the dataset, runs the commands one after another, shows the result."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from nnunet_ssl import discovery
from nnunet_ssl.console import find_command
from nnunet_ssl.data.folders import write_json
from nnunet_ssl.data.text_files import read_json
from nnunet_ssl.demo import figure, results
from nnunet_ssl.demo.options import CONFIGURATION, SMALL_PLANS, Options
from nnunet_ssl.demo.plan import shrink_plans
from nnunet_ssl.demo.steps import Step, environment, preprocessing_steps, training_steps
from nnunet_ssl.demo.synthetic import STANDARD_SIZES, write_dataset
from nnunet_ssl.errors import SemiSupervisedError, complain
from nnunet_ssl.system.failures import raise_failure, system_errors
from nnunet_ssl.system.processes import guarded

STATE = "demo.json"  # finished steps
MADE_BY = "nnunet_ssl demo"  # stands in it, for other programs have a demo.json too
LINES_SHOWN = 25  # of the log of a command that failed


class Progress:
    """Which steps of a demo folder are done, kept in ``demo.json`` so that a second run skips them."""

    def __init__(self, output: Path) -> None:
        self.path = output / STATE
        self.done: dict[str, Any] = (_read_state(output) or {}).get("steps", {})

    def seconds(self, name: str, command: list[str]) -> float | None:
        """Duration of a finished step, None if it is still to do.

        Raises:
            SemiSupervisedError: it was done with another command.
        """
        record = self.done.get(name)
        if record is None:
            return None
        if record["command"] != command:
            raise complain(
                f"{self.path.parent} holds a demo with other settings.",
                [f"there: {shlex.join(record['command'])}", f"now:   {shlex.join(command)}"],
                "Choose another folder (-o), or start afresh with --overwrite.",
            )
        return float(record["seconds"])

    def finish(self, name: str, command: list[str], seconds: float) -> None:
        self.done[name] = {"command": command, "seconds": round(seconds, 1)}
        write_json(str(self.path), {"made_by": MADE_BY, "steps": self.done})


def _read_state(output: Path) -> dict[str, Any] | None:
    """Content of demo.json; None unless a demo wrote it."""
    try:
        content: dict[str, Any] = read_json(output / STATE, dict)
    except SemiSupervisedError as error:
        raise_failure(error)
        return None
    ours = content.get("made_by") == MADE_BY and isinstance(content.get("steps"), dict)
    return content if ours else None


def prepare_folder(output: Path, overwrite: bool) -> None:
    """Create the output folder, emptied first if asked to; only a folder that a demo has made is ever emptied.

    Raises:
        SemiSupervisedError: the folder holds something else.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        if _read_state(output) is None:
            raise complain(
                f"{output} exists and was not made by the demo (no readable {STATE} of the demo is in it).",
                remedy="Choose another folder with -o.",
            )
        if overwrite:
            shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    if not (output / STATE).exists():
        write_json(str(output / STATE), {"made_by": MADE_BY, "steps": {}})


def run_command(step: Step, log: Path, variables: dict[str, str]) -> float:
    """Run one command with its output in a log file. Returns its duration in seconds.

    On a terminal the last line of the output is shown while it runs.

    Raises:
        SemiSupervisedError: it failed; the message ends with the last lines of the log.
        SystemFailure: no space left for the log and the like.
    """
    start = time.monotonic()
    tail: deque[str] = deque(maxlen=LINES_SHOWN)
    command = [find_command(step.command[0]), *step.command[1:]]
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        system_errors(log),
        open(log, "w", encoding="utf-8") as file,
        subprocess.Popen(
            guarded(command),  # it ends when this process does, or leaves the block
            env={**os.environ, **variables, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for us alone
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        with process.stdin:
            for line in process.stdout:
                file.write(line)
                if line.strip():
                    tail.append(line.rstrip())
                    _show_live(f"  {time.monotonic() - start:4.0f} s  {line.strip()}")
    _show_live("")
    if process.returncode:
        raise complain(
            f"The command ended with code {process.returncode}: {shlex.join(step.command)}",
            tail,
            f"The whole log: {log}\nAfter the cause is removed, run the demo again: it continues here.",
        )
    return time.monotonic() - start


def _show_live(text: str) -> None:
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(f"\r{text[:width]:<{width}}\r", end="", flush=True)


def run_demo(options: Options, overwrite: bool = False) -> Path:
    """Everything, or what an earlier run has left to do. Returns the folder with the results.

    Raises:
        SemiSupervisedError: unusable output folder, or a command failed.
    """
    prepare_folder(options.output, overwrite)
    discovery.register()
    variables = environment(options)
    progress = Progress(options.output)
    before, after = preprocessing_steps(options), training_steps(options)
    total = 1 + len(before) + len(after)
    start = time.monotonic()

    print(f"Semi-supervised training on synthetic data, in {options.output}. A second run skips what is done.\n")
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")
    print("export nnUNet_extTrainer=$(nnunet_ssl path)\n")
    _make_dataset(options, progress, f"[1/{total}]")
    for number, step in enumerate([*before, *after], 2):
        if step == after[0]:
            _write_small_plans(options)
        log = options.output / "logs" / f"{number:02d}_{step.name}.log"
        _run_step(step, f"[{number}/{total}]", log, variables, progress)
    _report(options, progress)
    print(f"Time: {time.monotonic() - start:.0f} s")
    return options.output


def _make_dataset(options: Options, progress: Progress, position: str) -> None:
    sizes = STANDARD_SIZES
    command = ["seed", str(options.seed), options.dataset]
    print(f"{position} {sizes.labeled} labelled, {sizes.unlabeled} unlabelled and {sizes.test} test cases")
    if progress.seconds("dataset", command) is None:
        start = time.monotonic()
        write_dataset(options.raw.parent, options.dataset, options.seed, sizes)
        progress.finish("dataset", command, time.monotonic() - start)
    print(f"  {options.raw}/{{imagesTr,labelsTr,imagesUn,imagesTs}}")


def _write_small_plans(options: Options) -> None:
    source = options.preprocessed / "nnUNetPlans.json"
    target = options.preprocessed / f"{SMALL_PLANS}.json"
    plans = shrink_plans(read_json(source, dict), CONFIGURATION, SMALL_PLANS)
    write_json(str(target), plans, indent=4)
    print(f"      nnU-Net's plans with a network for a CPU: {target.name} (patch and features reduced)")


def _run_step(step: Step, position: str, log: Path, variables: dict[str, str], progress: Progress) -> None:
    print(f"{position} {step.purpose}\n  $ {shlex.join(step.command)}", flush=True)
    seconds = progress.seconds(step.name, list(step.command))
    if seconds is not None:
        print("  already done")
        return
    seconds = run_command(step, log, variables)
    progress.finish(step.name, list(step.command), seconds)
    print(f"  {seconds:.0f} s, log: {log.relative_to(log.parent.parent)}")


def _report(options: Options, progress: Progress) -> None:
    control, semi = (
        results.read_scores(t, options.predictions(t), progress.done[f"train_{t}"]["seconds"]) for t in options.trainers
    )
    numbers, picture = options.output / "results.json", options.output / "comparison.png"
    write_json(str(numbers), results.as_json(control, semi))
    predictions = [options.predictions(t) for t in options.trainers]
    rows = [figure.read_row(c, options.raw / "imagesTs", options.raw / "labelsTs", predictions) for c in control.cases]
    figure.draw(rows, (control, semi), picture)
    print(f"\n{results.table(control, semi)}\n\n{results.conclusion(control, semi)}\n")
    for what, where in {
        "Picture": picture,
        "Numbers": numbers,
        "Predictions": options.output / "predictions",
        "Models and training curves": options.model(options.trainer).parent,
        "Data (unlabelled images: imagesUn)": options.raw,
        "Logs": options.output / "logs",
    }.items():
        print(f"{what}: {where}")
