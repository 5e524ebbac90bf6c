"""`nnunet_ssl evaluate` as a user calls it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

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
