from __future__ import annotations

import argparse
import re

import pytest

from nnunet_ssl.commands import report
from tests.evaluation.report import synthetic
from tests.evaluation.report.synthetic import CONTROL, METHOD_A


def call(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    report.add_arguments(parser)
    return report.run(parser.parse_args(arguments))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    return synthetic.build(
        tmp_path, trainers=(CONTROL, METHOD_A), splits={"n6": (6, 10)}, seeds=(0,), folds={0: ("case_0",)}
    )


def test_report_says_where_the_page_is(folder, capsys):
    assert call(str(folder), "--metric", "dice") == 0
    assert str(folder / "report" / "index.html") in capsys.readouterr().out
    assert (folder / "report" / "index.html").is_file()


def test_options(folder, tmp_path):
    target = tmp_path / "a" / "b"
    assert call(str(folder), "-o", str(target), "--metric", "asd", "--control", METHOD_A) == 0
    text = re.sub(" +", " ", (target / "report.md").read_text())  # columns are padded
    assert "| trainer | ASD, mm mean (± std) | ASD, mm difference (95 % interval) | ASD, mm p (Holm) | struct" in text
    assert "| MeanTeacher (control) |" in text
    assert not (folder / "report").exists()


def test_unknown_metric_is_refused(folder, capsys):
    with pytest.raises(SystemExit):
        call(str(folder), "--metric", "volume")
    assert "invalid choice: 'volume'" in capsys.readouterr().err
