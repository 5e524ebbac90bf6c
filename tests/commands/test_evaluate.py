"""`nnunet_ssl evaluate` as a user calls it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from nnunet_ssl import cli
from nnunet_ssl.commands import evaluate
from nnunet_ssl.errors import SemiSupervisedError
from tests.evaluation.scoring.folders import Folders, volume, write, write_json


def call(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    return evaluate.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path, cases=("a", "b", "c"))


def paths(folders: Folders) -> list[object]:
    return ["-ref", folders.references, "-pred", folders.predictions]


def cases(folder: Path) -> list[str]:
    return list(dict.fromkeys(row["case"] for row in json.loads((folder / "evaluation.json").read_text())["cases"]))


def test_table_on_the_screen_and_files(folders, capfd):
    assert call(*paths(folders)) == 0
    output = capfd.readouterr()
    assert "| ball" in output.out
    assert "HD95 [mm]" in output.out
    assert "NSD at 1 mm" in output.out
    assert output.out.rstrip().endswith(f"evaluation.json, evaluation.csv, evaluation.md in {folders.predictions}")
    assert "Evaluating: 100%" in output.err
    assert cases(folders.predictions) == ["a", "b", "c"]


def test_options(folders, tmp_path, capsys):
    write_json(tmp_path / "other.json", {"labels": {"background": 0, "all": 1, "rest": 2}, "file_ending": ".nii.gz"})
    options = ["-o", tmp_path / "results", "--voxel", "--tolerance", 2.5, "-np", 1, "-djfile", tmp_path / "other.json"]
    assert call(*paths(folders), *options) == 0
    content = json.loads((tmp_path / "results" / "evaluation.json").read_text())
    assert (content["unit"], content["tolerance"], [*content["classes"]]) == ("voxel", 2.5, ["all", "rest"])
    assert "NSD at 2.5 voxel" in capsys.readouterr().out


def test_cases_as_ids_and_as_files(folders, tmp_path):
    (tmp_path / "cases.txt").write_text("c\n\n  a \n")
    write_json(tmp_path / "cases.json", ["b"])
    files = [tmp_path / "cases.txt"], [tmp_path / "cases.json"]
    for given, expected in zip((["b", "a"], *files), (["a", "b"], ["a", "c"], ["b"]), strict=True):
        assert call(*paths(folders), "--cases", *given) == 0
        assert cases(folders.predictions) == expected


@pytest.mark.parametrize("text", ["{", '{"val": ["a"]}', "[1]"])
def test_a_file_without_a_list_of_cases(folders, tmp_path, text):
    (tmp_path / "cases.json").write_text(text)
    with pytest.raises(SemiSupervisedError, match=str(tmp_path / "cases.json")):
        call(*paths(folders), "--cases", tmp_path / "cases.json")


def test_an_unknown_case_is_an_error(folders):
    with pytest.raises(SemiSupervisedError, match="nobody: no reference label"):
        call(*paths(folders), "--cases", "a", "nobody")


def test_no_output_after_an_error(folders, capsys):
    write(folders.predictions / "b.nii.gz", volume(1)[1:])
    with pytest.raises(SemiSupervisedError, match="b: the prediction b.nii.gz lies on another grid"):
        call(*paths(folders))
    assert capsys.readouterr().out == ""
    assert not list(folders.predictions.glob("evaluation*"))


def test_through_the_command_line_an_error_is_explained_without_a_traceback(folders, capsys, monkeypatch):
    monkeypatch.setitem(cli.COMMANDS, "evaluate", "score predictions")
    (folders.predictions / "b.nii.gz").unlink()
    arguments = [str(argument) for argument in paths(folders)]
    assert cli.main(["evaluate", *arguments]) == 1
    error = capsys.readouterr().err
    assert "nnunet_ssl evaluate: The predictions in" in error
    assert "- b: no prediction b.nii.gz" in error
    assert "Traceback" not in error
    assert cli.main(["evaluate", *arguments, "-np", "1", "--cases", "a"]) == 0


def test_without_a_dataset_json_the_values_in_the_files_are_the_classes(folders, capsys):
    (folders.raw / "dataset.json").unlink()
    made_up = volume(1)
    made_up[0, 0, 0] = 7
    write(folders.predictions / "b.nii.gz", made_up)
    assert call(*paths(folders), "-np", 1) == 0
    note = "No dataset.json was found: the classes are the label values in the files (1, 2, 7), 0 the background."
    assert f"NOTE: {note} Only predictions hold 7." in capsys.readouterr().out.splitlines()
    content = json.loads((folders.predictions / "evaluation.json").read_text())
    assert content["notes"] == [f"{note} Only predictions hold 7."]
    assert [(row["case"], row["class"], row["label"], row["status"]) for row in content["cases"]][3:6] == [
        ("b", "1", 1, "ok"), ("b", "2", 2, "ok"), ("b", "7", 7, "false_positive"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((4, 4, 4), np.uint8), "Every voxel of every file is 0"),
        (np.arange(343, dtype=np.uint16).reshape(7, 7, 7), "342 different values; these are no label files"),
    ],
)
def test_files_without_labels_and_without_a_dataset_json(folders, labels, message):
    (folders.raw / "dataset.json").unlink()
    for file in (*folders.references.glob("*.nii.gz"), *folders.predictions.glob("*.nii.gz")):
        write(file, labels)
    with pytest.raises(SemiSupervisedError, match=message):
        call(*paths(folders), "-np", 1)


def test_files_that_cannot_be_read_are_named_without_a_dataset_json_too(folders):
    (folders.raw / "dataset.json").unlink()
    (folders.predictions / "b.nii.gz").write_bytes(b"damaged")
    with pytest.raises(SemiSupervisedError, match=r"b: the prediction b\.nii\.gz"):
        call(*paths(folders), "-np", 1)
