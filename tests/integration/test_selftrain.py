"""A self-training of two teachers and one round with nnU-Net's real commands, and again with garbage for labels.

Nothing may change by that: not a pseudo-label, not a score, not a weight of the student.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch

from nnunet_ssl.commands import selftrain
from nnunet_ssl.evaluation.benchmark import evaluator, job_run, run_local
from nnunet_ssl.selftrain import bodies
from nnunet_ssl.selftrain.steps import SELECT
from tests.integration.command_server import run_forked
from tests.integration.commands import Project, same_predictions
from tests.running import CASES, write_split
from tests.selftrain.fakes import select_here
from tests.tiny import DATASET

pytestmark = pytest.mark.slow

STUDENTS = "Dataset902_Tiny_selftrain_1"
TRAINING = ("num_epochs=2", "num_iterations_per_epoch=16", "num_val_iterations_per_epoch=1", "optimizer=adamw",
            "initial_lr=0.01", "mirror_axes=[]", "seed=1")  # fmt: skip
WORDS = ("-d", "901", "-c", "3d_fullres", "--split", "n2", "-f", "0", "--rounds", "1", "--n-teachers", "2",
         "--teachers", "checkpoints", "--threshold", "0", "--voxels", "ignore", "--voxel-confidence", "0.5",
         "-device", "cpu", "--training", *TRAINING)  # fmt: skip


def run(project: Project, patch: pytest.MonkeyPatch) -> Path:
    """The command, its own commands in forks of the server, the evaluation in this process."""

    def forked(command: Sequence[str], log: str, *_: object) -> int:
        variables = project.environment(nnUNet_n_proc_DA="0", nnUNet_npp="1", nnUNet_nps="1")
        return run_forked([*command], variables, str(project.root), log)

    patch.setattr(job_run, "find_command", lambda name: name)
    patch.setattr(job_run, "run_command", forked)
    patch.setattr(evaluator.Evaluator, "evaluate", lambda self, task, log, stop: task.run(1))
    patch.setattr(run_local, "REFRESH", 0.02)
    patch.setattr(bodies, "BODIES", {**bodies.BODIES, SELECT: select_here})
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        patch.setenv(name, str(project.root / name))
    parser = argparse.ArgumentParser()
    selftrain.add_arguments(parser)
    out = project.root / "out"
    assert selftrain.run(parser.parse_args([*WORDS, "-o", str(out)])) == 0
    return out


def garbage(project: Project) -> None:
    """In place of every withheld label, raw and preprocessed."""
    other = project.raw / "labelsTr" / "tiny_005.nii.gz"
    for case in CASES[2:5]:
        for folder in (project.raw / "labelsTr", project.preprocessed / "gt_segmentations"):
            shutil.copy(other, folder / f"{case}.nii.gz")
        for file in (project.preprocessed / "nnUNetPlans_3d_fullres").glob(f"{case}_seg*"):
            file.write_bytes(b"garbage")


def weights(project: Project, dataset: str) -> dict[str, dict[str, torch.Tensor]]:
    """Model -> weights of its final checkpoint."""
    files = sorted((project.root / "nnUNet_results" / dataset).glob("*/fold_0/checkpoint_final.pth"))
    return {f.parents[1].name: torch.load(f, weights_only=False)["network_weights"] for f in files}


def test_from_two_labelled_cases_to_a_student_and_withheld_labels_change_nothing(
    make_dataset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    base = make_dataset(preprocess=False)
    write_split(base)
    first = Project(base.parents[1], DATASET)
    second = Project(tmp_path / "garbage", DATASET)
    shutil.copytree(first.root, second.root)
    garbage(second)
    outs = [run(project, monkeypatch) for project in (first, second)]

    # what came out
    selection = pd.read_csv(outs[0] / "round_1" / "selection.csv")
    assert len(selection) == 6 and selection["kept"].sum() >= 1
    assert selection["score"].between(0, 1).sum() >= 1 and (selection["ignored"] > 0).any()
    rounds = pd.read_csv(outs[0] / "report" / "rounds.csv")
    assert rounds["row"].tolist() == ["0, the control", "1", "control, as long"]
    assert rounds["trainings"].tolist() == [1, 2, 1] and rounds["epochs"].tolist() == [2, 2, 4]
    assert rounds["dice"].between(0, 1).all() and rounds["dice_difference"].notna().tolist() == [False, True, True]
    page = (outs[0] / "report" / "index.html").read_text()
    assert "Semi-supervised self-training" in page and page.count("data:image/png") == 1
    assert "src=" not in page.replace('src="data:', "")
    models = weights(first, STUDENTS)
    (student,) = models
    text = (first.root / "nnUNet_results" / STUDENTS / student / "fold_0").glob("training_log_*.txt")
    drawn = int(selection["kept"].sum())
    assert any(f"{drawn + 2 * -(-drawn // 2)} training and 1 validation cases" in file.read_text() for file in text)
    trainer, plans, configuration = student.split("__")
    model = ("-d", STUDENTS, "-c", configuration, "-f", 0, "-tr", trainer, "-p", plans, "-o", tmp_path / "model.zip")
    (first.root / "nnUNet_results" / STUDENTS / student / "fold_0" / "progress.png").touch()  # not drawn in tests
    first.run("nnUNetv2_export_model_to_zip", *model)
    assert (tmp_path / "model.zip").stat().st_size > 1000

    # and what did not change
    assert selection.equals(pd.read_csv(outs[1] / "round_1" / "selection.csv"))
    assert same_predictions(outs[0] / "round_1" / "labels", outs[1] / "round_1" / "labels")
    for dataset in (DATASET, STUDENTS):
        pairs = weights(first, dataset), weights(second, dataset)
        assert [*pairs[0]] == [*pairs[1]]
        for name, own in pairs[0].items():
            assert all(torch.equal(own[key], pairs[1][name][key]) for key in own), name
    assert os.path.exists(first.root / "nnUNet_results" / DATASET) and len(weights(first, DATASET)) == 2
