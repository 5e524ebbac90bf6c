"""Complaints of evaluate, benchmark, report, methods and demo: each remedy, followed, helps."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nnunet_ssl.commands import headroom
from nnunet_ssl.demo.options import Options, check_options
from nnunet_ssl.demo.runner import Progress, prepare_folder, run_command
from nnunet_ssl.demo.steps import Step
from nnunet_ssl.evaluation.benchmark import run_local, slurm, start
from nnunet_ssl.evaluation.benchmark.cluster_scripts import Resources
from nnunet_ssl.evaluation.report.load import load_benchmark
from nnunet_ssl.evaluation.report.write import write_report
from nnunet_ssl.evaluation.scoring.results import read_rows
from nnunet_ssl.planning.plans_copy import write_plans_copy
from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from tests.evaluation.report import synthetic
from tests.evaluation.scoring.folders import Folders, write_json
from tests.remedies.rows import OBEY, Here, Row, check, message_of
from tests.running import SHORT, make_trainer, write_split

EVALUATE = (
    "evaluate",
    "-ref",
    "{folder}/raw/labelsTr",
    "-pred",
    "{folder}/predictions",
    "-o",
    "{folder}/out",
    "-np",
    "1",
)
VALIDATION = (*EVALUATE[:4], "{folder}/model/fold_0/validation", *EVALUATE[5:])
OUT = ("benchmark", "-o", "{folder}/out")
CHOICE = ("-d", "901", "-c", "3d_fullres", "-tr", "nnUNetTrainerSupervised", "--splits", "n2", "-device", "cpu")
WRITE = ("--write", "sh")


PREDICT = ("predict-as-paper", "-i", "{folder}", "-o", "{folder}/out", "-d", "901", "-p", "paper", "-tr",
           "nnUNetTrainerMeanTeacher", "-c", "3d_fullres", "-device", "cpu")  # fmt: skip


def trained_model(
    prediction: dict[str, object] | None = None, checkpoint: str = "checkpoint_final.pth"
) -> Callable[[Here], None]:
    """A model in nnUNet_results, as a training leaves it, and an image to predict."""

    def make(here: Here) -> None:
        here.patch.setenv("nnUNet_results", str(here.folder / "results"))
        write_plans_copy(901, name="paper", training=SHORT, prediction=prediction, overwrite=True)
        trainer = make_trainer(here.base, nnUNetTrainerMeanTeacher, plans_name="paper", training=None, fold="all")
        trainer.initialize()
        folder = Path(trainer.output_folder).with_name("fold_0")
        folder.mkdir(exist_ok=True)
        for name in ("plans.json", "dataset.json"):
            content = trainer.plans_manager.plans if name == "plans.json" else trainer.dataset_json
            (folder.parent / name).write_text(json.dumps(content))
        trainer.save_checkpoint(str(folder / checkpoint))
        shutil.copy(next(Path(here.base.parents[1], "nnUNet_raw", here.base.name, "imagesTr").iterdir()), here.folder)

    return make


def labels(change: Callable[[Here, Folders], object] = lambda here, folders: None) -> Callable[[Here], None]:
    """Two cases, each predicted as it is; then a change."""
    return lambda here: change(here, Folders(here.folder))  # type: ignore[return-value]


def model(summary: object) -> Callable[[Here], None]:
    """The same, with the predictions where nnU-Net puts those of a fold."""

    def fault(here: Here) -> None:
        folders = Folders(here.folder)
        fold = here.folder / "model" / "fold_0"
        fold.mkdir(parents=True)
        shutil.copy(folders.raw / "dataset.json", fold.parent)
        folders.predictions.rename(fold / "validation")
        if summary is not None:
            here.file("model/fold_0/validation/summary.json", summary)

    return fault


def dataset_json(**values: object) -> Callable[[Here], None]:
    def change(here: Here) -> None:
        path = here.folder / "raw" / "dataset.json"
        write_json(path, {**json.loads(path.read_text()), **values})

    return change


def without_description(here: Here, folders: Folders) -> None:
    here.file("given.json", (folders.raw / "dataset.json").read_bytes())
    (folders.raw / "dataset.json").unlink()


def shown_without_description(here: Here, folders: Folders) -> None:
    without_description(here, folders)
    for file in list(folders.predictions.glob("*.nii.gz")):
        shutil.copy(file, here.folder / file.name.replace(".nii.gz", "_0000.nii.gz"))


def other_names(here: Here, folders: Folders) -> None:
    without_description(here, folders)
    for file in folders.predictions.iterdir():
        file.rename(file.with_name(f"other_{file.name}"))


def same_names(here: Here) -> None:
    for file in (here.folder / "predictions").iterdir():
        file.rename(file.with_name(file.name.removeprefix("other_")))


def nothing_to_see(here: Here, folders: Folders) -> None:
    without_description(here, folders)
    for case in ("a", "b"):
        folders.add(case, np.zeros((6, 8, 10), np.uint8))


def two_descriptions(here: Here, folders: Folders) -> None:
    content = json.loads((folders.raw / "dataset.json").read_text())
    write_json(folders.predictions / "dataset.json", {**content, "labels": {"background": 0, "ball": 2, "box": 1}})


def one_folder_too_high(here: Here, folders: Folders) -> None:
    shutil.move(folders.predictions, here.folder / "all" / "validation")
    (here.folder / "all").rename(folders.predictions)


def evaluated(change: Callable[[str], str]) -> Callable[[Here], None]:
    def fault(here: Here) -> None:
        Folders(here.folder)
        assert here.said_by(EVALUATE) == ""
        path = here.folder / "out" / "evaluation.csv"
        path.write_text(change(path.read_text()))

    return fault


def small_benchmark(here: Here) -> None:
    synthetic.build(here.folder, trainers=(synthetic.CONTROL,), splits={"n6": (6, 10)}, failed=())


def in_voxels(here: Here) -> None:
    small_benchmark(here)
    first = next(iter(sorted((here.folder / "out" / "jobs").iterdir()))) / "evaluation.json"
    first.write_text(json.dumps({**json.loads(first.read_text()), "unit": "voxel"}))


def without_those_in_voxels(here: Here) -> None:
    first = next(iter(sorted((here.folder / "out" / "jobs").iterdir())))
    for file in first.glob("evaluation.*"):
        file.unlink()


def report(here: Here, **options: object) -> None:
    write_report(str(here.folder / "out"), **options)  # type: ignore[arg-type]


def manifest(here: Here, **change: object) -> None:
    """A manifest of the split "n2", which is there."""
    write_split(here.base)
    entry = {
        "dataset": 901,
        "configurations": ["3d_fullres"],
        "trainers": ["nnUNetTrainerSupervised"],
        "splits": ["n2"],
    }
    here.file("manifest.json", {"device": "cpu", "datasets": [{**entry, **change}]})


def written(here: Here) -> None:
    """A benchmark whose jobs were not started, and none will train."""
    write_split(here.base)
    assert here.said_by((*OUT, *CHOICE, *WRITE)) == ""
    here.patch.setattr(start, "run_in_foreground", lambda *_: 0)


def job_ids(here: Here) -> list[str]:
    return [job["id"] for job in json.loads((here.folder / "out" / "manifest.json").read_text())["jobs"]]


def headroom_of(*words: str) -> Callable[[Here], str]:
    """What it says before anything is trained."""

    def ask(here: Here) -> None:
        parser = argparse.ArgumentParser()
        headroom.add_arguments(parser)
        headroom.chosen_manifest(parser.parse_args([*words, "-o", "unused"]), str(here.folder / "out"))

    return message_of(ask)


def demo_command(code: str) -> Callable[[Here], object]:
    return lambda here: here.file("step.py", code.encode())


def demo_step(here: Here) -> None:
    step = Step("step", "", ("python", str(here.folder / "step.py")))
    run_command(step, here.folder / "step.log", {})


def other_demo(here: Here) -> None:
    prepare_folder(here.folder / "demo", overwrite=False)
    Progress(here.folder / "demo").finish("train", ["nnUNetv2_train", "999"], 3.0)


def demo(here: Here, overwrite: bool = False) -> None:
    prepare_folder(here.folder / "demo", overwrite)
    Progress(here.folder / "demo").seconds("train", ["nnUNetv2_train", "5"])


def no_slurm(here: Here) -> None:
    here.patch.setenv("PATH", "")


def slurm_there(here: Here) -> None:
    """submitit looks whether there is SLURM; the host of a cluster has these."""
    folder = here.folder / "bin"
    folder.mkdir()
    for name in ("srun", "sbatch"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    here.patch.setenv("PATH", str(folder))


def executor(here: Here) -> None:
    slurm.make_executor(str(here.folder), Resources(), "slurm")


ROWS = {
    # ---- evaluate
    "predictions are one folder below": Row(
        "evaluation.scoring.cases:pair_cases 2",
        EVALUATE,
        "Did you mean",
        (*EVALUATE[:4], "{folder}/predictions/validation", *EVALUATE[5:]),
        labels(one_folder_too_high),
        dataset=None,
    ),
    "predictions that are nowhere": Row(
        "evaluation.scoring.evaluate:_check_arguments 1",
        (*EVALUATE[:4], "{folder}/nowhere", *EVALUATE[5:]),
        "what they take: nnunet_ssl evaluate --help",
        EVALUATE,
        labels(),
        dataset=None,
    ),
    "no reference": Row(
        "evaluation.scoring.cases:pair_cases 1",
        (*EVALUATE[:2], "{folder}/empty", *EVALUATE[3:], "-djfile", "{folder}/raw/dataset.json"),
        "Give the folder of the reference labels with -ref",
        EVALUATE,
        labels(lambda here, folders: (here.folder / "empty").mkdir()),
        dataset=None,
    ),
    "a summary of nothing": Row(
        "evaluation.scoring.cases:pair_cases 3",
        VALIDATION,
        "Name the cases with --cases",
        (*VALIDATION, "--cases", "a", "b"),
        model({"metric_per_case": []}),
        dataset=None,
    ),
    "a damaged summary": Row(
        "evaluation.scoring.cases:_cases_of_summary 1",
        VALIDATION,
        "or name the cases with --cases",
        (*VALIDATION, "--cases", "a", "b"),
        model(b"{"),
        dataset=None,
    ),
    "another summary": Row(
        "evaluation.scoring.cases:_cases_of_summary 2",
        VALIDATION,
        "or name the cases with --cases",
        (*VALIDATION, "--cases", "a", "b"),
        model({"metric_per_case": [3]}),
        dataset=None,
    ),
    "an unfinished validation": Row(
        "evaluation.scoring.cases:_cases_of_split 1",
        VALIDATION,
        "or name the cases with --cases",
        (*VALIDATION, "--cases", "a", "b"),
        model(None),
        dataset=None,
    ),
    "two descriptions": Row(
        "evaluation.scoring.dataset:find_dataset 1",
        EVALUATE,
        "Choose the one that is right for both with -djfile",
        (*EVALUATE, "-djfile", "{folder}/raw/dataset.json"),
        labels(two_descriptions),
        dataset=None,
    ),
    "no file ending": Row(
        "evaluation.scoring.dataset:find_dataset 2",
        EVALUATE,
        'It is, for instance, ".nii.gz"',
        dataset_json(file_ending=".nii.gz"),
        lambda here: (labels()(here), dataset_json(file_ending=3)(here)),
        dataset=None,
    ),
    "files of other names": Row(
        "evaluation.scoring.dataset:_common_ending 1",
        EVALUATE,
        "Give both files of a case the same name",
        same_names,
        labels(other_names),
        dataset=None,
    ),
    "labels of another form": Row(
        "evaluation.scoring.dataset:read_labels 1",
        EVALUATE,
        "They must be as nnU-Net v2 writes them",
        dataset_json(labels={"background": 0, "ball": 1, "box": 2}),
        lambda here: (labels()(here), dataset_json(labels={"0": "background", "1": "ball"})(here)),
        dataset=None,
    ),
    "a format that nnU-Net does not read": Row(
        "evaluation.scoring.dataset:find_reader 1",
        EVALUATE,
        "It reads .bmp",
        dataset_json(file_ending=".nii.gz"),
        lambda here: (
            labels()(here),
            dataset_json(file_ending=".npy")(here),
            [(here.folder / part / "a.npy").touch() for part in ("raw/labelsTr", "predictions")],
        ),
        dataset=None,
    ),
    "predictions that are missing": Row(
        "evaluation.scoring.evaluate:evaluate_folder 1",
        EVALUATE,
        "name the cases to evaluate with --cases",
        (*EVALUATE, "--cases", "a"),
        labels(lambda here, folders: (folders.predictions / "b.nii.gz").unlink()),
        dataset=None,
    ),
    "no class anywhere": Row(
        "evaluation.scoring.found_labels:find_labels 1",
        EVALUATE,
        "Give dataset.json with -djfile",
        (*EVALUATE, "-djfile", "{folder}/given.json"),
        labels(nothing_to_see),
        dataset=None,
    ),
    "another table": Row(
        "evaluation.scoring.results:read_rows 1",
        message_of(lambda here: read_rows(str(here.folder / "out" / "evaluation.csv"))),
        "Run `nnunet_ssl evaluate` again",
        lambda here: here.said_by(EVALUATE),
        evaluated(lambda text: text.replace("case", "CASE", 1)),
        dataset=None,
    ),
    "no numbers in the table": Row(
        "evaluation.scoring.results:read_rows 2",
        message_of(lambda here: read_rows(str(here.folder / "out" / "evaluation.csv"))),
        "Run `nnunet_ssl evaluate` again",
        lambda here: here.said_by(EVALUATE),
        evaluated(lambda text: text.replace(",1.0,", ",one,")),
        dataset=None,
    ),
    # ---- predict-as-paper
    "a model without prediction settings": Row(
        "evaluation.as_paper:predict_as_paper 1",
        PREDICT,
        "Use nnUNetv2_predict, or train with plans of nnunet_ssl plans --prediction stride=...",
        trained_model(prediction={"stride": [8, 8, 8]}),
        trained_model(),
    ),
    "a checkpoint that is not there yet": Row(
        "evaluation.model_folder:check_checkpoints 1",
        PREDICT,
        "Finish the training, or name folds with -f and a file with -chk",
        trained_model(prediction={"stride": [8, 8, 8]}),
        trained_model(prediction={"stride": [8, 8, 8]}, checkpoint="checkpoint_latest.pth"),
    ),
    "a model whose results are nowhere": Row(
        "evaluation.model_folder:Model.folder 1",
        PREDICT,
        "export nnUNet_results=FOLDER",
        lambda here: here.patch.setenv("nnUNet_results", str(here.folder / "results")),
        lambda here: (trained_model(prediction={"stride": [8, 8, 8]})(here), here.patch.delenv("nnUNet_results")),
    ),
    "a model of no dataset": Row(
        "evaluation.model_folder:Model.folder 2",
        tuple("77" if word == "901" else word for word in PREDICT),
        "Give the number or the name of a dataset",
        PREDICT,
        trained_model(prediction={"stride": [8, 8, 8]}),
    ),
    "images that are nowhere": Row(
        "evaluation.as_paper:predict_as_paper 2",
        tuple("{folder}/nowhere" if word == "{folder}" else word for word in PREDICT),
        "Give that folder with -i",
        PREDICT,
        trained_model(prediction={"stride": [8, 8, 8]}),
    ),
    "no model": Row(
        "evaluation.model_folder:Model.folder 3",
        PREDICT,
        "Train it: nnUNetv2_train 901 3d_fullres 0 -p paper -tr nnUNetTrainerMeanTeacher",
        trained_model(prediction={"stride": [8, 8, 8]}),
    ),
    # ---- report
    "no benchmark": Row(
        "evaluation.report.load:load_benchmark 1",
        message_of(lambda here: load_benchmark(str(here.folder))),
        "Give the folder that",
        lambda here: None,
        small_benchmark,
        then=message_of(lambda here: load_benchmark(str(here.folder / "out"))),
        dataset=None,
    ),
    "a list of jobs that is none": Row(
        "evaluation.report.load:_manifest 1",
        message_of(lambda here: load_benchmark(str(here.folder / "out"))),
        "or delete it",
        lambda here: (here.folder / "out" / "manifest.json").unlink(),
        lambda here: (small_benchmark(here), here.file("out/manifest.json", {"jobs": 3})),
        dataset=None,
    ),
    "mm and voxels": Row(
        "evaluation.report.load:_check_units 1",
        message_of(lambda here: load_benchmark(str(here.folder / "out"))),
        "Delete the evaluation.* files of one kind",
        without_those_in_voxels,
        in_voxels,
        dataset=None,
    ),
    "no such metric": Row(
        "evaluation.report.write:write_report 1",
        message_of(lambda here: report(here, metrics=["F1"])),
        "There are: dice",
        lambda here: None,
        small_benchmark,
        then=message_of(lambda here: report(here, metrics=["dice"])),
        dataset=None,
    ),
    "no such control": Row(
        "evaluation.report.write:write_report 2",
        ("report", "{folder}/out", "--control", "nnUNetTrainer"),
        "Choose one of these",
        ("report", "{folder}/out", "--control", synthetic.CONTROL),
        small_benchmark,
        dataset=None,
    ),
    "no such case": Row(
        "evaluation.report.write:_check_cases 1",
        ("report", "{folder}/out", "--cases", "case_9"),
        "The first of those that were: case_0",
        ("report", "{folder}/out", "--cases", "case_0"),
        small_benchmark,
        dataset=None,
    ),
    # ---- benchmark
    "a manifest and options": Row(
        "commands.benchmark:chosen_manifest 1",
        (*OUT, "--manifest", "{folder}/manifest.json", "-d", "901", *WRITE),
        "Give one or the other",
        (*OUT, "--manifest", "{folder}/manifest.json", *WRITE),
        manifest,
    ),
    "half of the choice": Row(
        "commands.benchmark:chosen_manifest 2",
        (*OUT, "-d", "901", *WRITE),
        "Or give --manifest FILE",
        (*OUT, *CHOICE, *WRITE),
        manifest,
    ),
    "an unusable manifest": Row(
        "evaluation.benchmark.manifest:parse_manifest 1",
        (*OUT, "--manifest", "{folder}/manifest.json", *WRITE),
        "See nnunet_ssl benchmark --help",
        manifest,
        lambda here: manifest(here, seed=3),
    ),
    "a split that is not there": Row(
        "evaluation.benchmark.expand:prepare 1",
        (*OUT, "--manifest", "{folder}/manifest.json", *WRITE),
        "Nothing was started or written",
        manifest,
        lambda here: manifest(here, splits=["no"]),
    ),
    "nothing to continue": Row(
        "evaluation.benchmark.jobs:read_benchmark 1",
        (*OUT, *WRITE),
        "See --help for a new one",
        (*OUT, *CHOICE, *WRITE),
        manifest,
    ),
    # ---- headroom
    "a benchmark of another version": Row(
        "evaluation.benchmark.jobs:read_benchmark 2",
        (*OUT, *WRITE),
        "with another folder, -o",
        ("benchmark", "-o", "{folder}/new", *CHOICE, *WRITE),
        lambda here: (manifest(here), here.file("out/manifest.json", {"jobs": [{"x": 1}]})),
    ),
    "no such job": Row(
        "evaluation.benchmark.start:run_single 1",
        (*OUT, "--job", "x"),
        "Give one with --job",
        lambda here: None,
        written,
        then=lambda here: here.said_by((*OUT, "--job", job_ids(here)[0])),
    ),
    "half of a question": Row(
        "commands.headroom:chosen_manifest 1",
        headroom_of("-d", "901"),
        "Give both -d and -c",
        lambda here: None,
        then=headroom_of("-d", "901", "-c", "3d_fullres"),
    ),
    "fractions of the same cases": Row(
        "headroom.plan:_distinct 1",
        headroom_of("-d", "901", "-c", "3d_fullres", "--fractions", "0.99", "1"),
        "such as --fractions 0.25 0.5 1",
        lambda here: None,
        then=headroom_of("-d", "901", "-c", "3d_fullres", "--fractions", "0.25", "0.5", "1"),
    ),
    "a folder with another benchmark": Row(
        "headroom.plan:stored 1",
        headroom_of(),
        "Give another folder with -o, and -d and -c with it",
        lambda here: None,
        lambda here: (manifest(here), here.said_by((*OUT, *CHOICE, *WRITE))),
        then=headroom_of("-d", "901", "-c", "3d_fullres"),
    ),
    "no GPU": Row(
        "evaluation.benchmark.run_local:slots 1",
        message_of(lambda here: run_local.slots("cuda", None)),
        "or with -device cpu",
        lambda here: None,
        lambda here: here.patch.setenv("CUDA_VISIBLE_DEVICES", ""),
        then=message_of(lambda here: run_local.slots("cpu", None)),
        dataset=None,
    ),
    "no submitit": Row(
        "evaluation.benchmark.slurm:make_executor 1",
        message_of(executor),
        "pip install submitit",
        lambda here: (here.patch.undo(), slurm_there(here)),
        lambda here: here.patch.setitem(sys.modules, "submitit", None),
        dataset=None,
    ),
    "no SLURM": Row(
        "evaluation.benchmark.slurm:make_executor 2",
        message_of(executor),
        "srun and sbatch are installed",
        slurm_there,
        no_slurm,
        dataset=None,
    ),
    # ---- methods and demo
    "no such trainer": Row(
        "trainers.lookup:find_any_trainer 1",
        ("methods", "-tr", "nnUNetTrainerX"),
        "Run: nnunet_ssl methods",
        OBEY,
        then=("methods", "-tr", "nnUNetTrainerMeanTeacher"),
        dataset=None,
    ),
    "a demo of no length": Row(
        "demo.options:check_options 1",
        message_of(lambda here: check_options(replace(Options(here.folder), epochs=0))),
        "Correct these options",
        lambda here: None,
        then=message_of(lambda here: check_options(Options(here.folder))),
        dataset=None,
    ),
    "a folder of somebody": Row(
        "demo.runner:prepare_folder 1",
        message_of(lambda here: prepare_folder(here.folder / "mine", False)),
        "Choose another folder with -o",
        lambda here: None,
        lambda here: here.file("mine/thesis.txt", "text"),
        then=message_of(lambda here: prepare_folder(here.folder / "new", False)),
        dataset=None,
    ),
    "a demo with other settings": Row(
        "demo.runner:Progress.seconds 1",
        message_of(demo),
        "or start afresh with --overwrite",
        lambda here: None,
        other_demo,
        then=message_of(lambda here: demo(here, overwrite=True)),
        dataset=None,
    ),
    "a step of the demo fails": Row(
        "demo.runner:run_command 1",
        message_of(demo_step),
        "After the cause is removed, run the demo again",
        demo_command("pass"),
        demo_command("raise SystemExit(3)"),
        dataset=None,
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_followed_the_complaint_is_gone(make_dataset, tmp_path, monkeypatch, capsys, name):
    row, folder = ROWS[name], tmp_path / "files"
    folder.mkdir()
    if "submitit" in name or "SLURM" in name:
        pytest.importorskip("submitit")
    base = folder if row.dataset is None else make_dataset(preprocess=False, unlabeled=0)
    check(row, Here(base, folder, monkeypatch, capsys))
