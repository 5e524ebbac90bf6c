"""The three files."""

from __future__ import annotations

import csv
import json
import math
import os
import re

import pytest

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.evaluation.scoring.definitions import METRICS
from nnunet_ssl.evaluation.scoring.results import Evaluation, read_rows

HEADER = "case,class,label,status,dice,jaccard,hd95,asd,assd,nsd,reference_voxels,predicted_voxels"


def row(case: str, name: str, label: int | str, status: str, value: float, voxels: tuple[int, int]) -> dict:
    counts = {"reference_voxels": voxels[0], "predicted_voxels": voxels[1]}
    return {"case": case, "class": name, "label": label, "status": status, **dict.fromkeys(METRICS, value), **counts}


ROWS = [
    row("001", "NA", 1, "ok", 1 / 3, (3, 4)),
    row("001", "whole, all", "1+2", "true_negative", math.nan, (0, 0)),
    row("002", "NA", 1, "missed", 0.0, (5, 0)),
    row("002", "whole, all", "1+2", "true_negative", math.nan, (0, 0)),
]


@pytest.fixture
def evaluation() -> Evaluation:
    return Evaluation("/labels", "/predictions", "mm", 2.5, ROWS, ["something to know"])


def test_csv(evaluation, tmp_path):
    evaluation.write(str(tmp_path))
    lines = (tmp_path / "evaluation.csv").read_text().splitlines()
    assert lines[0] == HEADER
    assert lines[1].startswith(f"001,NA,1,ok,{1 / 3!r},")
    assert lines[2] == '001,"whole, all",1+2,true_negative,,,,,,,0,0'
    assert len(lines) == 5


def test_reading_the_csv_gives_the_rows_back(evaluation, tmp_path):
    evaluation.write(str(tmp_path))
    table = read_rows(str(tmp_path / "evaluation.csv"))
    assert ",".join(table.columns) == HEADER
    assert table["case"].tolist() == ["001", "001", "002", "002"]  # text
    assert table["class"].tolist() == ["NA", "whole, all"] * 2
    assert table["label"].tolist() == ["1", "1+2"] * 2
    for metric in METRICS:
        assert table[metric].dtype == float
        assert table[metric].tolist() == pytest.approx([r[metric] for r in ROWS], nan_ok=True, abs=0)
    assert table["reference_voxels"].tolist() == [3, 0, 5, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not an evaluation.csv"),
        ("case,dice\na,1\n", "its header is case,dice"),
        (HEADER + "\na,b,1,ok,x,1,1,1,1,1,1,1\n", "column dice"),
        (HEADER + "\na,b,1,ok,1,1,1,1,1,1,,1\n", "column reference_voxels"),
    ],
)
def test_other_tables_are_refused(tmp_path, text, message):
    path = tmp_path / "evaluation.csv"
    path.write_text(text)
    with pytest.raises(SemiSupervisedError, match=message):
        read_rows(str(path))


def test_json(evaluation, tmp_path):
    evaluation.write(str(tmp_path))
    content = json.loads((tmp_path / "evaluation.json").read_text(), parse_constant=pytest.fail)
    assert (content["version"], content["unit"], content["tolerance"]) == (1, "mm", 2.5)
    assert (content["reference"], content["prediction"]) == ("/labels", "/predictions")
    assert content["cases"][0] == ROWS[0]
    assert content["cases"][1] == ROWS[1] | dict.fromkeys(METRICS)
    assert content["classes"]["NA"]["dice"]["mean"] == pytest.approx(1 / 6)
    assert content["classes"]["NA"]["ok"]["dice"] == pytest.approx(1 / 3)
    assert content["classes"]["whole, all"]["hd95"] == {"mean": None, "std": None}
    assert content["classes"]["whole, all"]["counts"] == {"ok": 0, "missed": 0, "false_positive": 0, "true_negative": 2}
    assert content["mean"] == pytest.approx(dict.fromkeys(METRICS, 1 / 6))
    assert "2.5 mm" in content["definitions"]["nsd"]
    assert {"nnunet_ssl", "nnunetv2", "monai", "torch", "python"} <= set(content["versions"])


def test_markdown_explains_itself(evaluation):
    text = evaluation.to_markdown()
    assert "semi-supervised" in text.splitlines()[0]
    lines = text.splitlines()
    (table_row,) = [line for line in lines if line.startswith("| NA") and "±" in line]
    assert table_row.replace(" ", "").startswith("|NA|0.1667±0.2357|")
    assert table_row.replace(" ", "").endswith("|1|1|0|0|")
    (ok_row,) = [line for line in lines if line.startswith("| NA") and "±" not in line]
    assert ok_row.replace(" ", "").startswith("|NA|0.3333|")
    (nothing, nothing_ok) = [line for line in lines if line.startswith("| whole, all")]
    assert nothing.replace(" ", "") == "|whole,all|-|-|-|-|-|-|0|0|0|2|"
    assert nothing_ok.replace(" ", "") == "|whole,all|-|-|-|-|-|-|0|"
    assert "not in the mean over classes: whole, all." in text
    assert "Missed: 002 (NA)" in text
    assert "False positive:" not in text
    assert "HD95 [mm]" in text
    assert "NSD at 2.5 mm" in text
    assert "HD95: the larger of the two directed 95th percentiles" in text
    assert "ASD: mean distance from the surface of the prediction to that of the reference" in text
    assert "ASSD: mean over the distances of both directions, pooled" in text
    assert "NOTE: something to know" in text
    assert "papers" not in text


def test_markdown_in_voxels_says_so():
    text = Evaluation("/l", "/p", "voxel", 1.0, ROWS).to_markdown()
    assert "Distances are in **voxels** (unit spacing), the convention of many tables of papers" in text
    assert "HD95 [voxel]" in text
    assert "NSD at 1 voxel" in text
    assert not re.search(r"\bmm\b", text)


def test_nothing_is_left_when_writing_fails(evaluation, tmp_path, monkeypatch):
    (tmp_path / "evaluation.csv").write_text("old")

    def full(*paths: str) -> None:
        raise OSError("full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="full"):
        evaluation.write(str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["evaluation.csv"]
    assert (tmp_path / "evaluation.csv").read_text() == "old"


def test_a_pipe_in_a_name_does_not_break_the_table(tmp_path):
    evaluation = Evaluation("/l", "/p", "mm", 1.0, [row("a", "x|y", 1, "ok", 0.5, (1, 1))])
    assert "| x\\|y" in evaluation.to_markdown()
    evaluation.write(str(tmp_path / "new" / "folder"))
    with open(tmp_path / "new" / "folder" / "evaluation.csv") as file:
        assert next(csv.DictReader(file))["class"] == "x|y"
