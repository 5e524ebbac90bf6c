"""docs/how-to/new-method.md as a reader follows it: its code and its commands, on a tiny dataset."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from tests.integration.commands import SCRIPTS, Project, inputs
from tests.new_method import MINE, blocks, write_trainer
from tests.tiny import DATASET

pytestmark = pytest.mark.slow

CONTROL = "nnUNetTrainerSupervised"
# the reader's dataset and length, and what a computer without a GPU needs
TINY = {
    r"-d 4\b": "-d 901",
    r"nnUNetv2_train 4\b": "nnUNetv2_train 901",
    "--fractions 0.1": "--fractions 0.5",
    r"\bl10\b": "l50",
    "nnUNetPlans_l10": "nnUNetPlans_l50",
    "num_epochs=200": "num_epochs=1 num_iterations_per_epoch=2 num_val_iterations_per_epoch=1 optimizer=adamw",
    r"(nnUNetv2_(?:train|predict) .*|nnunet_ssl benchmark .*)": r"\1 -device cpu",
    r"(nnUNetv2_predict .*)": r"\1 -npp 1 -nps 1",
}


def commands() -> list[tuple[str, ...]]:
    """Those of the page behind the two that set the variable."""
    text = "".join(blocks("bash")[1:])
    for pattern, tiny in TINY.items():
        text, replaced = re.subn(pattern, tiny, text)
        assert replaced, pattern
    return [tuple(shlex.split(line)) for line in text.splitlines()]


@pytest.fixture
def project(make_dataset, tmp_path) -> Project:
    base = make_dataset()
    write_trainer(tmp_path)
    project = Project(base.parents[1], DATASET)
    inputs(project, project.root / "IN")
    return project


def variable(home: Path) -> str:
    """nnUNet_extTrainer as the page's first commands leave it."""
    path = os.pathsep.join([str(SCRIPTS), os.environ["PATH"]])
    script = blocks("bash")[0] + 'printf %s "$nnUNet_extTrainer"'
    environment = {**os.environ, "HOME": str(home), "PATH": path}
    done = subprocess.run(["bash", "-ec", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""  # no warning of the folder
    return done.stdout


def test_the_page(project: Project, tmp_path: Path):
    environment = {"nnUNet_extTrainer": variable(tmp_path), "nnUNet_n_proc_DA": "0", "COLUMNS": "200"}
    output = project.run_each(*commands(), **environment)
    (tmp_path / "output.txt").write_text(output)
    assert "confidence from which a voxel is labelled" in output  # methods -tr
    assert re.search(rf"nnUNetPlans_l50 +split l50\n +.*\n? *{MINE}: threshold = 0.9", output)  # doctor

    plans = json.loads((project.preprocessed / "nnUNetPlans_l50.json").read_text())
    assert plans["nnunet_ssl"]["hyperparameters"] == {MINE: {"threshold": 0.9}}
    for trainer in (MINE, CONTROL):
        results = project.results(trainer, "nnUNetPlans_l50", "3d_fullres") / "fold_0"
        assert (results / "validation" / "summary.json").is_file()
    curves = pd.read_csv(project.results(MINE, "nnUNetPlans_l50", "3d_fullres") / "fold_0" / "semi_supervised.csv")
    assert any("weak_to_strong" in column for column in curves.columns)
    assert len(list((project.root / "OUT").glob("*.nii.gz"))) == 2

    report = pd.read_csv(project.root / "OUT_BENCHMARK" / "report" / "report.csv")
    assert set(report["trainer"]) == {MINE, CONTROL}
    records = [json.loads(p.read_text()) for p in (project.root / "OUT_BENCHMARK").glob("jobs/*/record.json")]
    assert {r["job"]["trainer"]: r["settings"].get("hyperparameters") for r in records} == {
        MINE: {MINE: {"threshold": 0.9}},
        CONTROL: None,
    }
