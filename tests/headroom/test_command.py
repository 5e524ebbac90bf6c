"""The command from plans to page with nnU-Net's real trainings, called twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest

from nnunet_ssl.cli import main
from nnunet_ssl.evaluation.benchmark import evaluator, job_run, run_local
from nnunet_ssl.headroom.plan import Question, planned
from nnunet_ssl.training.settings import BLOCK
from tests.integration.command_server import run_forked
from tests.integration.commands import Project
from tests.tiny import DATASET

README = "nnunet_ssl headroom -d 4 -c 3d_fullres -o OUT"
TRAINING = ("num_epochs=1", "num_iterations_per_epoch=1", "num_val_iterations_per_epoch=1", "mirror_axes=[]")


def test_what_is_planned(make_dataset: Callable[..., Path]):
    base = make_dataset(preprocess=False)
    (experiment,) = planned(Question("901", "3d_fullres", training={"num_epochs": 1}, device="cpu")).experiments
    assert experiment.dataset == DATASET and experiment.trainers == ("nnUNetTrainerSupervised",)
    assert experiment.splits == ("headroom_l25", "headroom_l50", "headroom_l100") and experiment.folds == (0, 1, 2)
    assert experiment.training == {"num_epochs": 1, "optimizer": "adamw", "initial_lr": 0.003}
    plans = json.loads((base / f"{experiment.plans}.json").read_text())
    assert "features_per_stage" not in json.dumps(plans[BLOCK]) and list(plans["configurations"]) == ["3d_fullres"]
    architecture = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    assert architecture["features_per_stage"][:2] == [8, 16]
    splits = json.loads((base / "splits_ssl.json").read_text())["splits"]
    assert [len(splits[name]["folds"][0]["labeled"]) for name in experiment.splits] == [1, 2, 4]

    # a reduced copy is not reduced again, and fractions with the same cases are trained once
    question = Question("901", "3d_fullres", plans=experiment.plans, fractions=(0.48, 0.5, 1), folds=(1,), device="cpu")
    (again,) = planned(question).experiments
    assert again.plans == experiment.plans and again.splits == ("headroom_l48", "headroom_l100")
    assert again.folds == (1,)


@pytest.mark.slow
def test_from_plans_to_a_page_and_nothing_twice(make_dataset, monkeypatch: pytest.MonkeyPatch, capsys):
    base = make_dataset(preprocess=False)
    project, ran = Project(base.parents[1], DATASET), list[str]()

    def forked(command: Sequence[str], log: str, *_: object) -> int:
        ran.append(command[0])
        return run_forked([*command], project.environment(nnUNet_n_proc_DA="0"), str(project.root), log)

    monkeypatch.setattr(job_run, "find_command", lambda name: name)
    monkeypatch.setattr(job_run, "run_command", forked)
    monkeypatch.setattr(evaluator.Evaluator, "evaluate", lambda self, task, log, stop: task.run(1))
    monkeypatch.setattr(run_local, "REFRESH", 0.02)
    out = project.root / "OUT"
    monkeypatch.chdir(project.root)
    words = README.replace("-d 4", "-d 901").split()[1:]
    assert main([*words, "-f", "0", "--fractions", "0.5", "1", "-device", "cpu", "--training", *TRAINING]) == 0
    said = capsys.readouterr().out
    curve = pd.read_csv(out / "headroom" / "curve.csv")
    assert curve["labeled"].tolist() == [2, 4] and curve["cases"].tolist() == [2, 2]
    assert curve["dice"].between(0, 1).all() and "With 2 and 4 labelled cases the Dice is " in said
    assert "2 jobs: 2 complete." in said and ran == ["nnUNetv2_train"] * 2

    assert main(["headroom", "-o", str(out)]) == 0
    assert "2 jobs, 2 of them already complete." in capsys.readouterr().out and len(ran) == 2
