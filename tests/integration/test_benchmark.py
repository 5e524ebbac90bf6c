"""A benchmark on real data as one command: 2 trainers x 2 numbers of labels, to the table.

It is killed in the middle and one of its jobs is made to fail; both in one benchmark, since every job costs seconds.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.integration.commands import DATASET, Project, dump

pytestmark = pytest.mark.slow

CONTROL, SKCDF = "nnUNetTrainerSupervised", "nnUNetTrainerSKCDF"
TRAINING = ("num_epochs=1", "num_iterations_per_epoch=1", "num_val_iterations_per_epoch=1",
            "optimizer=adamw", "initial_lr=0.003", "mirror_axes=[]")  # fmt: skip
ONE_PROCESS = {"nnUNet_n_proc_DA": "0", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
TO_FAIL = f"{DATASET}__3d_fullres__{CONTROL}__n3__fold0__seed0"


@pytest.fixture(scope="module")
def project(hippocampus: Callable[[Path], Project], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two folds with ten training cases, of which the splits label 3 and 6, and one validation case."""
    project = hippocampus(tmp_path_factory.mktemp("benchmark") / "project")
    folds = json.loads((project.preprocessed / "splits_final.json").read_text())
    dump(
        [{"train": f["train"][:10], "val": f["val"][:1]} for f in folds[:2]], project.preprocessed / "splits_final.json"
    )
    (project.preprocessed / "splits_ssl.json").unlink()
    project.run("nnunet_ssl", "splits", "-d", 4, "--counts", 3, 6, "--groups", project.root / "groups.json")
    (project.root / "nnUNet_results").mkdir()
    return project


def words(project: Project) -> list[str]:
    return [
        *("-d", "4", "-c", "3d_fullres", "-tr", SKCDF, "--splits", "n3", "n6", "-f", "0"),
        *("--training", *TRAINING, "-device", "cpu", "--processes", "2", "-o", str(project.root / "out")),
    ]


def records(project: Project) -> dict[str, dict[str, Any]]:
    found = {p.parent.name: p for p in (project.root / "out").glob("jobs/*/record.json")}
    return {name: json.loads(path.read_text()) for name, path in sorted(found.items())}


def complete(project: Project) -> dict[str, dict[str, Any]]:
    return {name: record for name, record in records(project).items() if record["state"] == "complete"}


def obstacle(project: Project) -> None:
    """A file where the results folder of one job belongs."""
    (plans,) = copies_of_n3(project)
    model = project.results(CONTROL, plans.stem, "3d_fullres")
    model.mkdir(parents=True, exist_ok=True)
    (model / "fold_0").touch()


def copies_of_n3(project: Project) -> list[Path]:
    return list(project.preprocessed.glob("nnUNetPlans_n3_s0_??????.json"))


def kill_in_the_middle(project: Project) -> None:
    """Start the benchmark, put the obstacle in the way of one job, kill when others are complete and in training."""
    command = [str(Path(sys.executable).parent / "nnunet_ssl"), "benchmark", *words(project)]
    with open(project.root / "killed.txt", "wb") as log:
        process = subprocess.Popen(command, env=project.environment(**ONE_PROCESS), stdout=log, stderr=log)
    while process.poll() is None and not copies_of_n3(project):
        time.sleep(0.05)
    obstacle(project)  # nnU-Net makes the folder seconds later
    while process.poll() is None:
        if complete(project) and cut_off(project):
            break
        time.sleep(0.1)
    assert process.poll() is None, (project.root / "killed.txt").read_text()[-3000:]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def cut_off(project: Project) -> list[str]:
    """Jobs whose training has begun and not ended."""
    stages = {name: r["stages"][-1:] for name, r in records(project).items() if r["state"] == "running"}
    trained = [
        name for name, last in stages.items() if last and (last[0]["name"], last[0]["exit_code"]) == ("train", None)
    ]
    return [name for name in trained if "Epoch 0" in (project.root / "out" / "jobs" / name / "log.txt").read_text()]


def table(output: str) -> list[str]:
    """The rows of the jobs, as the command prints them, but for the width of the columns, which one cell can change."""
    return [re.sub(r"\s+", " ", line) for line in output.splitlines() if re.match(rf"{DATASET}\s+3d_fullres", line)]


def test_four_jobs_killed_in_the_middle_with_one_that_fails(project: Project):
    kill_in_the_middle(project)
    before = records(project)
    finished = complete(project)
    in_training = cut_off(project)
    assert before[TO_FAIL]["state"] == "failed" and 1 <= len(finished) < 3 and 1 <= len(in_training) <= 2
    # on a busy machine a training may come to its end before it notices that nobody waits for it
    ended = {name for name in in_training if Path(before[name]["results_folder"], "checkpoint_final.pth").is_file()}

    # started again: finished jobs are left alone, the others complete, the one that cannot is named
    output = project.run("nnunet_ssl", "benchmark", *words(project), fails=True, **ONE_PROCESS)
    assert "4 jobs: 1 failed, 3 complete." in output
    assert f"FAILED: {TO_FAIL}\n" in output and "FileExistsError" in output
    assert set(before) <= set(records(project)) and len(complete(project)) == 3
    assert {name: records(project)[name] for name in finished} == finished
    for name in in_training:
        attempts = [stage for stage in records(project)[name]["stages"] if stage["name"] == "train"]
        assert [stage["exit_code"] for stage in attempts] == ([None] if name in ended else [None, 0])
        assert all(stage["command"][-1] == "--c" for stage in attempts)
    first_table = table(output)
    first_report = pd.read_csv(project.root / "out" / "report" / "report.csv")

    # the cause removed: only that job runs, and the rest of the table is the same
    Path(records(project)[TO_FAIL]["results_folder"]).unlink()
    three = complete(project)
    output = project.run("nnunet_ssl", "benchmark", "-o", project.root / "out", **ONE_PROCESS)
    assert "4 jobs, 3 of them already complete." in output and "4 jobs: 4 complete." in output
    assert {name: records(project)[name] for name in three} == three
    assert len(table(output)) == 4
    assert [row for row in table(output) if row not in first_table] == [table(output)[0]]
    assert CONTROL in table(output)[0] and " n3 " in table(output)[0]

    report = pd.read_csv(project.root / "out" / "report" / "report.csv")
    assert set(report["trainer"]) == {CONTROL, SKCDF} and set(report["split"]) == {"n3", "n6"}
    assert set(report["trainings"]) == {1}
    same = ["trainer", "class", "metric", "mean", "trainings"]
    before_and_after = [r.query("split == 'n6'")[same].reset_index(drop=True) for r in (first_report, report)]
    pd.testing.assert_frame_equal(*before_and_after)
    assert (project.root / "out" / "report" / "index.html").is_file()
    check_figures(project)


def check_figures(project: Project) -> None:
    """What the records say fits what was asked for, and what nnU-Net wrote."""
    by_trainer: dict[str, set[str]] = {}
    for record in records(project).values():
        job = record["job"]
        assert record["steps"] == 1 and record["seconds_per_step"] > 0
        assert record["peak_memory_mb"] > 200 and record["seconds"] > 1
        assert record["settings"]["training"]["seed"] == 0
        fold = json.loads((project.preprocessed / "splits_ssl.json").read_text())["splits"][job["split"]]["folds"]
        assert job["labeled"] == len(fold[job["fold"]]["labeled"]) and job["labeled"] + job["withheld"] == 10
        evaluated = pd.read_csv(project.root / "out" / "jobs" / name_of(job) / "evaluation.csv")
        summary = json.loads(Path(record["results_folder"], "validation", "summary.json").read_text())
        for label, mean in summary["mean"].items():
            ours = evaluated[evaluated["label"] == int(label)]["dice"].mean()
            assert ours == pytest.approx(mean["Dice"], abs=1e-6)
        by_trainer.setdefault(job["plans"], set()).add(job["trainer"])
    assert list(by_trainer.values()) == [{CONTROL, SKCDF}] * 2


def name_of(job: dict[str, Any]) -> str:
    parts = (job["dataset"], job["configuration"], job["trainer"], job["split"])
    return "__".join([*parts, f"fold{job['fold']}", f"seed{job['seed']}"])
