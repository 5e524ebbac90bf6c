"""A small dataset with splits, and a benchmark on it whose training runs are played by fake_nnunet.py."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_ssl.commands import benchmark
from nnunet_ssl.evaluation.benchmark.scores import ToEvaluate

DATASET = "Dataset901_Tiny"
CONTROL, MEAN_TEACHER, SKCDF = "nnUNetTrainerSupervised", "nnUNetTrainerMeanTeacher", "nnUNetTrainerSKCDF"
WORDS = ("-d", "901", "-c", "3d_fullres", "-tr", MEAN_TEACHER, "--splits", "n2", "-device", "cpu")
TRAINING = ("--training", "num_epochs=2", "num_iterations_per_epoch=10")
# The command in a process of its own, with the fake commands and the evaluation below.
DRIVER = """
import argparse, sys
from tests.evaluation.benchmark import fakes
from nnunet_ssl import cli
fakes.install(sys.argv.pop(1))
cli.COMMANDS.setdefault("benchmark", "")
sys.exit(cli.main(["benchmark", *sys.argv[1:]]))
"""


@dataclass(frozen=True)
class Place:
    """The folders of a benchmark with fakes. ``base``: nnUNet_preprocessed/DATASET; ``bin``: the fake commands."""

    root: Path
    base: Path
    bin: Path

    @property
    def out(self) -> Path:
        return self.root / "out"

    def order(self, trainer: str, text: str | None) -> None:
        """Tell the fake trainer to "fail" or to "wait"; None: to behave."""
        file = self.root / "orders" / trainer
        file.parent.mkdir(exist_ok=True)
        file.unlink(missing_ok=True) if text is None else file.write_text(text)

    def job(self, trainer: str, fold: int = 0, seed: int = 0, split: str = "n2") -> str:
        return f"{DATASET}__3d_fullres__{trainer}__{split}__fold{fold}__seed{seed}"

    def record(self, trainer: str, **which: Any) -> dict[str, Any]:
        return json.loads((self.out / "jobs" / self.job(trainer, **which) / "record.json").read_text())

    def start(self, *words: str) -> subprocess.Popen[str]:
        """The command in a process of its own; its output in ``root/output.txt``."""
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
        with open(self.root / "output.txt", "w") as file:
            line = [sys.executable, "-c", DRIVER, str(self.bin), *words, "-o", str(self.out)]
            return subprocess.Popen(line, stdout=file, stderr=file, text=True, env=environment, cwd=self.root)


def make_place(base: Path) -> Place:
    """A place beside the preprocessed dataset ``base``, with two folds of which each has two labelled cases."""
    root = base.parents[1]
    cases = sorted(p.name.removesuffix(".nii.gz") for p in (base / "gt_segmentations").iterdir())
    folds = [{"train": [c for c in cases if c not in val], "val": val} for val in (cases[:2], cases[2:4])]
    (base / "splits_final.json").write_text(json.dumps(folds))
    from nnunet_ssl.data.split_making import create_splits

    create_splits(DATASET, counts=[2, 3])
    write_checkpoint(root / "checkpoint_final.pth")
    folder = root / "bin"
    folder.mkdir()
    for name in ("nnUNetv2_train", "nnUNetv2_predict"):
        shutil.copy(Path(__file__).with_name("fake_nnunet.py"), folder / name)
        (folder / name).chmod(0o755)
    return Place(root, base, folder)


def write_checkpoint(path: Path) -> None:
    """What training_figures reads: 2 epochs of 10 steps in 1.5 and 2.5 s."""
    import torch

    logging = {"epoch_start_timestamps": [100.0, 200.0], "epoch_end_timestamps": [101.5, 202.5]}
    training = {"num_epochs": 2, "num_iterations_per_epoch": 10}
    torch.save({"logging": logging, "nnunet_ssl": {"settings": {"training": training}}}, path)


def install(folder: str | Path, patch: Callable[[object, str, object], None] = setattr) -> None:
    """Put the fake commands, a quick evaluation and an empty report in place of the real ones."""
    from nnunet_ssl.evaluation.benchmark import evaluator, job_run

    patch(job_run, "find_command", lambda name: str(Path(folder) / name))
    patch(evaluator.Evaluator, "evaluate", lambda self, task, log, stop: quick_evaluation(task))
    patch(benchmark, "write_report", lambda output: f"report: {output}")


def quick_evaluation(task: ToEvaluate) -> None:
    """Writes which file each prediction is, in place of MONAI's numbers."""
    cases = task.cases or sorted(p.name.removesuffix(".nii.gz") for p in Path(task.reference).iterdir())
    Path(task.output).mkdir(exist_ok=True)
    sizes = [len(Path(task.prediction, f"{case}.nii.gz").read_bytes()) for case in cases]
    lines = ["case,bytes", *(f"{case},{size}" for case, size in zip(cases, sizes, strict=True))]
    Path(task.output, "evaluation.csv").write_text("\n".join(lines))
    Path(task.output, "evaluation.json").write_text("{}")


def run(*words: str) -> int:
    """The command in this process."""
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    return benchmark.run(parser.parse_args(words))


def evaluations(out: Path) -> dict[str, str]:
    """The table's content: every evaluation.csv."""
    return {p.parent.name: p.read_text() for p in sorted(out.glob("jobs/*/evaluation.csv"))}
