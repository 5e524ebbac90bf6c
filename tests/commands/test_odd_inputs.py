"""Whatever a person hands to a command: it does its work, or says what is wrong and names the file. No traceback."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES

from nnunet_ssl.cli import main
from nnunet_ssl.data.image_checks import Needs, inspect_case
from nnunet_ssl.demo import runner
from nnunet_ssl.doctor import examination
from nnunet_ssl.doctor.examine import examine_dataset
from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.report import class_figure, curve_figure, forest_figure, fraction_figure, overlay_figure
from nnunet_ssl.evaluation.scoring.label_file import read_label_file
from tests.evaluation.report.synthetic import LABELED
from tests.evaluation.report.synthetic import build as build_benchmark
from tests.evaluation.scoring.folders import Folders
from tests.odd_inputs import FILES, VALUES, complaint, odd
from tests.tiny import DATASET

ODD = "odd name.\u738b.x"  # spaces, dots and Unicode
TRAINER = "nnUNetTrainerMeanTeacher"
COMPARE = ["benchmark", "-d", "901", "-c", "3d_fullres", "-tr", TRAINER, "--splits", "n2", "-o", "out"]
COMPARE += ["-device", "cpu", "--write", "sh"]
MODEL = f"results/{TRAINER}__nnUNetPlans__3d_fullres"

# where the odd thing is put, relative to the folder of the test, with BASE for the preprocessed dataset -> commands
PLACES: dict[str, list[list[str]]] = {
    f"{ODD}.json": [
        ["splits", "-d", "901", "--labeled-from", f"{ODD}.json", "--names", "given"],
        ["splits", "-d", "901", "--counts", "1", "--names", "grouped", "--groups", f"{ODD}.json"],
        ["evaluate", "-ref", "labels", "-pred", "predictions", "-np", "1", "--cases", f"{ODD}.json"],
        ["evaluate", "-ref", "labels", "-pred", "predictions", "-np", "1", "-djfile", f"{ODD}.json"],
        ["benchmark", "--manifest", f"{ODD}.json", "-o", "out", "--write", "sh"],
    ],
    f"{ODD}.csv": [["splits", "-d", "901", "--counts", "1", "--names", "grouped", "--groups", f"{ODD}.csv"]],
    f"{ODD}.txt": [["evaluate", "-ref", "labels", "-pred", "predictions", "-np", "1", "--cases", f"{ODD}.txt"]],
    f"{ODD}.yaml": [["benchmark", "--manifest", f"{ODD}.yaml", "-o", "out", "--write", "sh"]],
    ODD: [
        ["preprocess", "-d", "901", "-c", "2d", "-np", "1", "-i", ODD],
        ["evaluate", "-ref", ODD, "-pred", "predictions", "-np", "1"],
        ["evaluate", "-ref", "labels", "-pred", ODD, "-np", "1"],
        ["evaluate", "-ref", "labels", "-pred", "predictions", "-np", "1", "-o", ODD],
        ["benchmark", "-o", ODD],
        [*COMPARE[:9], "-o", ODD, *COMPARE[11:]],
        [*COMPARE, "--test-images", ODD, "--test-labels", "labels"],
        [*COMPARE, "--test-images", "images", "--test-labels", ODD],
        ["report", ODD],
        ["report", "benchmark", "-o", ODD],
        ["demo", "-o", ODD],
    ],
    "BASE/splits_final.json": [["splits", "-d", "901", "--counts", "1", "--names", "again"], ["doctor", "-d", "901"]],
    "BASE/splits_ssl.json": [
        ["splits", "-d", "901", "--counts", "1", "--names", "again"],
        ["plans", "-d", "901", "--split", "n2", "--name", "again"],
        ["doctor", "-d", "901"],
        COMPARE,
    ],
    "BASE/odd.json": [
        ["splits", "-d", "901", "-p", "odd", "--counts", "1"],
        ["plans", "-d", "901", "-p", "odd", "--split", "n2"],
        ["plans", "-d", "901", "--split", "n2", "--name", "odd"],
        ["preprocess", "-d", "901", "-p", "odd", "-np", "1"],
        ["doctor", "-d", "901", "-p", "odd"],
        [*COMPARE, "-p", "odd"],
    ],
    "BASE/dataset.json": [["preprocess", "-d", "901", "-c", "2d", "-np", "1"], ["doctor", "-d", "901"], COMPARE],
    "BASE/dataset_fingerprint.json": [["preprocess", "-d", "901", "-c", "2d", "-np", "1", "--overwrite"]],
    "images/a b.\u738b_0000.nii.gz": [["preprocess", "-d", "901", "-c", "2d", "-np", "1", "-i", "images"]],
    "predictions/a.nii.gz": [["evaluate", "-ref", "labels", "-pred", "predictions", "-np", "1"]],
    "labels/a.nii.gz": [["evaluate", "-ref", "labels", "-pred", "predictions", "-np", "1"]],
    "predictions/dataset.json": [["evaluate", "-ref", "labels", "-pred", "predictions", "-np", "1"]],
    "predictions/plans.json": [["evaluate", "-ref", "labels", "-pred", "predictions", "-np", "1"]],
    f"{MODEL}/fold_0/validation/summary.json": [
        ["evaluate", "-ref", "labels", "-pred", f"{MODEL}/fold_0/validation", "-np", "1"]
    ],
    f"{MODEL}/plans.json": [["evaluate", "-ref", "labels", "-pred", f"{MODEL}/fold_0/validation", "-np", "1"]],
    "benchmark/manifest.json": [
        ["report", "benchmark"],
        ["benchmark", "-o", "benchmark"],
        ["benchmark", "-o", "benchmark", "--job", "x"],
        [*COMPARE[:9], "-o", "benchmark", *COMPARE[11:]],
    ],
    "demo/demo.json": [["demo", "-o", "demo"]],
}


@pytest.fixture
def world(make_dataset, tmp_path, monkeypatch, capfd) -> dict[str, Path]:
    """A preprocessed dataset with a split, predictions, a model and a finished benchmark; the working directory."""
    base = make_dataset(unlabeled=1)
    monkeypatch.chdir(tmp_path)
    assert main(["splits", "-d", "901", "--counts", "2"]) == 0
    folders = Folders(tmp_path / "scoring")
    shutil.copytree(folders.paths[0], tmp_path / "labels")
    shutil.copytree(folders.paths[1], tmp_path / "predictions")
    for file in (tmp_path / "scoring").rglob("dataset.json"):
        shutil.copy(file, tmp_path / "labels")
    validation = tmp_path / MODEL / "fold_0" / "validation"
    shutil.copytree(folders.paths[1], validation)
    shutil.copy(tmp_path / "labels" / "dataset.json", tmp_path / MODEL)
    for name in ("images", "demo"):
        (tmp_path / name).mkdir()
    shutil.copy(base.parents[1] / "nnUNet_raw" / DATASET / "imagesUn" / "extra_000_0000.nii.gz", tmp_path / "images")
    trainers, splits = ("nnUNetTrainerSupervised", TRAINER), {"n6": LABELED["n6"]}
    build_benchmark(tmp_path / "b", trainers=trainers, splits=splits, seeds=(0,), failed=(), pictures=True)
    (tmp_path / "b" / "out").rename(tmp_path / "benchmark")
    _without_slow_parts(monkeypatch)
    capfd.readouterr()
    return {"BASE": base, "": tmp_path}


def _without_slow_parts(monkeypatch) -> None:
    """The parts of commands that read nothing of what is odd here."""

    def begin(folder, *arguments):
        raise complain(f"The demo begins in {folder}.")

    monkeypatch.setattr(examination, "examine_in_child", examine_dataset)
    monkeypatch.setattr(runner, "write_dataset", begin)
    for figure in (class_figure, fraction_figure, overlay_figure):
        monkeypatch.setattr(figure, "draw", lambda *arguments, **options: b"")
    monkeypatch.setattr(forest_figure, "draw", lambda *arguments: [])
    monkeypatch.setattr(curve_figure, "to_png", lambda *arguments, **options: b"")  # its curves are read and plotted


def where(place: str, world: dict[str, Path]) -> Path:
    first, _, rest = place.partition("/")
    return world["BASE"] / rest if first == "BASE" else world[""] / place


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_odd_files(world, capfd, place):
    path = where(place, world)
    problems = []
    for kind in FILES:
        for command in PLACES[place]:
            with odd(path, kind):
                problem = complaint(command, capfd, path.name)
            if problem:
                problems.append(f"{kind}: {' '.join(command)}: {problem}")
    assert not problems, "\n".join(problems)


@pytest.mark.slow
def test_odd_files_of_jobs(world, capfd):
    """The report is written, and names the jobs whose files are damaged."""
    jobs = sorted((world[""] / "benchmark" / "jobs").iterdir())
    (log, *_) = sorted((world[""] / "b" / "results").rglob("semi_supervised.csv"))
    files = [jobs[0] / "record.json", jobs[1] / "evaluation.csv", jobs[2] / "evaluation.json", log]
    for kind in FILES:
        with ExitStack() as stack:
            for file in files:
                stack.enter_context(odd(file, kind))
            assert not (problem := complaint(["report", "benchmark"], capfd)), f"{kind}: {problem}"
        page = (world[""] / "benchmark" / "report" / "report.md").read_text()
        assert all(job.name in page for job in jobs[:2]), kind


EVALUATE = ["evaluate", "-ref", "labels", "-pred", "predictions", "-np", "1"]
OPTIONS: dict[str, list[list[str]]] = {
    "splits": [
        ["splits", "-d", "VALUE", "--counts", "1"],
        *(["splits", "-d", "901", option, "VALUE"] for option in ("--fractions", "--counts", "--labeled-from")),
        *(["splits", "-d", "901", "--counts", "2", o, "VALUE"] for o in ("-p", "--names", "--seed", "--groups")),
        ["splits", "-d", "901", "--counts", "2", "--ignore-existing-folds", "--folds", "VALUE"],
    ],
    "plans": [
        ["plans", "-d", "VALUE", "--split", "n2"],
        *(["plans", "-d", "901", "--split", "n2", option, "VALUE"] for option in ("-p", "--name", "--training")),
        ["plans", "-d", "901", "--split", "VALUE"],
        *(
            ["plans", "-d", "901", "-c", "2d", "--patch", "8", "8", "--name", "small", "--overwrite", option, "VALUE"]
            for option in ("-c", "--patch", "--batch", "--features", "--spacing")
        ),
        ["plans", "-d", "901", "--name", "again", "--overwrite", "--training", "num_epochs=VALUE"],
        ["plans", "-d", "901", "--name", "again", "--overwrite", "--training", "VALUE=1"],
        ["plans", "-d", "901", "--name", "again", "--overwrite", "--hyperparameters", f"{TRAINER}:ema_decay=VALUE"],
        ["plans", "-d", "901", "--name", "again", "--overwrite", "--hyperparameters", "VALUE:ema_decay=1"],
    ],
    "preprocess": [
        ["preprocess", "-d", "VALUE", "-np", "1"],
        *(["preprocess", "-d", "901", "-c", "2d", option, "VALUE"] for option in ("-c", "-p", "-i", "-np")),
    ],
    "evaluate": [
        [*EVALUATE, option, "VALUE"] for option in ("-ref", "-pred", "--tolerance", "-np", "--cases", "-djfile")
    ],
    "benchmark": [
        *([*COMPARE, option, "VALUE"] for option in ("-d", "-c", "-p", "-tr", "--splits", "-f", "--seeds")),
        *([*COMPARE, option, "VALUE"] for option in ("--training", "--hyperparameters", "--protocol")),
        *([*COMPARE, option, "VALUE"] for option in ("--time", "--memory", "--cpus", "--partition", "--directive")),
        [*COMPARE, "--processes", "VALUE"],
        ["benchmark", "-o", "benchmark", "--job", "VALUE"],
        ["benchmark", "-o", "VALUE"],
        ["benchmark", "--manifest", "VALUE", "-o", "out"],
    ],
    "report": [
        ["report", "VALUE"],
        *(["report", "benchmark", option, "VALUE"] for option in ("--metric", "--cases", "--control")),
    ],
    "doctor": [["doctor", "-d", "901", option, "VALUE"] for option in ("-d", "-p", "-c")],
    "methods": [["methods", "-tr", "VALUE"]],
    "path": [["path", "VALUE"]],
    "demo": [["demo", option, "VALUE"] for option in ("-d", "-tr", "--epochs", "--seed", "--device")],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_odd_values(world, capfd, name):
    problems = []
    for words in OPTIONS[name]:
        for value in VALUES:
            command = [word.replace("VALUE", value) for word in words]
            if problem := complaint(command, capfd):
                problems.append(f"{command}: {problem}")
    assert not problems, "\n".join(problems)


def test_odd_entries_of_the_variable_of_trainers(monkeypatch, capfd):
    for value in VALUES:
        monkeypatch.setenv("nnUNet_extTrainer", value)
        assert main(["path"]) == 0
        assert capfd.readouterr().out.encode(errors="surrogateescape").rstrip(b"\n").endswith(b"external")


def test_names_in_another_encoding(world, capfd):
    """As archives from Windows leave them; SimpleITK ends the whole process there."""
    place, name = os.fsencode(world[""]), b"caf\xe9"
    for folder in (b"labels", b"predictions"):
        shutil.copy(os.path.join(place, folder, b"a.nii.gz"), os.path.join(place, folder, name + b".nii.gz"))
    image = os.path.join(place, b"images", b"extra_000_0000.nii.gz")
    shutil.copy(image, os.path.join(place, b"images", name + b"_0000.nii.gz"))
    for command in (EVALUATE, ["preprocess", "-d", "901", "-c", "2d", "-np", "1", "-i", "images"]):
        assert main(command) == 1
        assert "caf?" in (said := capfd.readouterr().err) and "not UTF-8; rename it" in said


@pytest.mark.parametrize("kind", [reader.__name__ for reader in LIST_OF_IO_CLASSES])
def test_odd_files_in_place_of_images_and_labels(tmp_path, kind):
    """Every reader of nnU-Net, and every ending that it takes."""
    (reader,) = (reader for reader in LIST_OF_IO_CLASSES if reader.__name__ == kind)
    for ending in reader.supported_file_endings:
        path = tmp_path / f"a b.\u738b_0000{ending}"
        needs = Needs(kind, ("T1",), ending, None, (0, 1, 2), {"3d_fullres": (1.0, 1.0, 1.0)})
        for what in FILES:
            with odd(path, what):
                (problem,) = inspect_case("a", [str(path)], needs).problems
                assert problem.startswith(path.name) and ".py" not in problem, f"{what}: {problem}"
                problem = read_label_file(str(path), reader())
                assert isinstance(problem, str) and ".py" not in problem, f"{what}: {problem}"
