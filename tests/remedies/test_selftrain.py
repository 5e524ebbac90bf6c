"""Complaints of selftrain: each remedy, followed, helps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.settings import read_settings
from nnunet_ssl.selftrain.student_dataset import kept_cases
from tests.remedies.rows import Here, Row, check
from tests.selftrain.fakes import TRAINING, install, make_place

OUT = ("selftrain", "-o", "{folder}/out")
CHOICE = ("-d", "901", "-c", "3d_fullres", "--split", "n2", "-device", "cpu", "--n-teachers", "2", "--rounds", "1")
ALL = (*OUT, *CHOICE, "--select", "none", *TRAINING)


def begun(here: Here) -> None:
    assert here.said_by((*ALL, "--write", "sh")) == ""


def done(here: Here) -> None:
    assert here.said_by(ALL) == ""


def other_version(here: Here) -> None:
    here.file("out/selftrain.json", {"version": 99, "settings": {"datasets": []}})


def no_teacher(here: Here) -> None:
    """The predictions and the checkpoint of a teacher are deleted."""
    done(here)
    shutil.rmtree(here.folder / "out" / "round_1" / "teacher_0")
    for file in model_folders(here)[0].glob("*.pth"):
        file.unlink()


def model_folders(here: Here) -> list[Path]:
    return sorted((here.base.parents[1] / "nnUNet_results" / "Dataset901_Tiny").glob("*_s0_*/fold_0"))


def said_by_step(step: str):
    """What became of a step that failed, after the whole command; empty if none did."""

    def ask(here: Here) -> str:
        here.said_by(ALL)
        record = json.loads((here.folder / "out" / "jobs" / step / "record.json").read_text())
        return record["error"] or ""

    return ask


def train_anew(here: Here) -> None:
    """Both folders that the message names."""
    message = said_by_step("round1__predict__0")(here).split("or delete ")[1]
    named = [word for word in message.split() if word.startswith("/") and Path(word).is_dir()]
    assert len(named) == 2
    for folder in named:
        shutil.rmtree(folder)


def stranger(here: Here) -> None:
    done(here)
    selection(here, lambda cases: cases.append({"case": "stranger", "kept": True}))


def selection(here: Here, change) -> None:
    file = here.folder / "out" / "round_1" / "selection.json"
    content = json.loads(file.read_text())
    change(content["cases"])
    file.write_text(json.dumps(content))


def of_kept(here: Here) -> str:
    from nnunet_ssl.errors import SemiSupervisedError

    out = str(here.folder / "out")
    try:
        kept_cases(Run(out, read_settings(out)), 1)
    except SemiSupervisedError as error:
        return str(error)
    return ""


ROWS = {
    "nothing to continue": Row("selftrain.settings:read_settings 1", OUT, "Name a dataset and a configuration", ALL),
    "another version": Row(
        "selftrain.settings:read_settings 2",
        OUT,
        "with another folder, -o",
        ("selftrain", "-o", "{folder}/new", *ALL[3:]),
        other_version,
    ),
    "half of the choice": Row(
        "selftrain.options:chosen_settings 1",
        (*OUT, "-d", "901"),
        "with -o alone the run there continues",
        OUT,
        begun,
    ),
    "two ways to choose": Row(
        "selftrain.options:chosen_settings 2",
        (*ALL, "--threshold", "0.5", "--keep-fraction", "0.5"),
        "Give one of them",
        (*ALL, "--threshold", "0.5"),
    ),
    "what cannot begin": Row(
        "selftrain.start:begin 1",
        (*ALL, "--min-cases", "0"),
        "--min-cases 0: at least 1\nNothing was started or written",
        (*ALL, "--min-cases", "1"),
    ),
    "no such step": Row(
        "selftrain.start:run_single 1",
        (*OUT, "--job", "x"),
        "Give one with --job",
        (*OUT, "--job", "round1__control"),
        lambda here: (begun(here), here.patch.setattr("nnunet_ssl.selftrain.start.run_in_foreground", lambda *_: 0)),
    ),
    "a teacher that is gone": Row(
        "selftrain.predict:predict 1",
        said_by_step("round1__predict__0"),
        "and give the command again: the teacher is then trained anew",
        train_anew,
        no_teacher,
    ),
    "a case that nobody knows": Row(
        "selftrain.student_dataset:kept_cases 1",
        of_kept,
        "Correct the file, or delete it",
        lambda here: selection(here, lambda cases: cases.pop()),
        stranger,
    ),
    "too few cases": Row(
        "selftrain.selection.decide:refuse_too_few 1",
        (*OUT, *CHOICE, *TRAINING, "--threshold", "1", "--min-cases", "4"),
        "",
        (*OUT, *CHOICE, *TRAINING, "--threshold", "0.5", "--min-cases", "4"),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_followed_the_complaint_is_gone(make_dataset, tmp_path, monkeypatch, capsys, name):
    folder = tmp_path / "files"
    folder.mkdir()
    base = make_dataset(preprocess=False)
    make_place(base)
    install(monkeypatch.setattr)
    check(ROWS[name], Here(base, folder, monkeypatch, capsys))
