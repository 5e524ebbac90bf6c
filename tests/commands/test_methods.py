"""`nnunet_ssl methods` as it is typed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from nnunet_ssl.cli import main
from nnunet_ssl.methods import align
from nnunet_ssl.trainers import TRAINERS, find_trainer

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_trainer_with_its_card(capsys):
    assert main(["methods"]) == 0
    header, rule, *rows = capsys.readouterr().out.splitlines()
    assert header.split("  ")[0] == "trainer"
    assert set(rule) == {"-", " "}
    starts = [0] + [i + 2 for i in range(len(rule)) if rule[i : i + 2] == "  "]
    for row, name in zip(rows, TRAINERS, strict=False):
        cells = [row[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
        assert cells == [name, *dataclasses.astuple(find_trainer(name).card)]
    assert rows[len(TRAINERS)] == ""


@pytest.mark.parametrize("name", ["nnUNetTrainerMeanTeacher", "nnUNetTrainerMeanTeacher_5epochs"])
def test_hyperparameters_with_default_meaning_and_source(name, capsys):
    assert main(["methods", "-tr", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{name}: Tarvainen & Valpola")
    rows = {line.split()[0]: line for line in lines[4:] if line}
    for field in dataclasses.fields(find_trainer(name).Hyperparameters):
        assert field.metadata["doc"] in rows[field.name]
        assert rows[field.name].endswith(field.metadata["source"])
    assert rows["ema_decay"].split()[1] == "0.99"
    assert rows["unlabeled_batch_size"].split()[1] == "null"
    assert "--hyperparameters nnUNetTrainerMeanTeacher:" in lines[-1]


def test_a_trainer_without_hyperparameters(capsys):
    assert main(["methods", "-tr", "nnUNetTrainerSupervised"]) == 0
    assert "No hyper-parameters." in capsys.readouterr().out


def test_an_unknown_trainer(capsys):
    assert main(["methods", "-tr", "nnUNetTrainer"]) == 1
    assert "no trainer 'nnUNetTrainer'; it has nnUNetTrainerSupervised" in capsys.readouterr().err


def test_columns_line_up():
    assert align([("a", "b"), ("long", "c")]) == ["a     b", "----  -", "long  c"]


@pytest.mark.parametrize("name", [*TRAINERS])
def test_the_documentation_page_has_every_hyperparameter_with_its_default(name):
    trainer = find_trainer(name)
    places = TRAINERS[name].removeprefix("nnunet_ssl.trainers.").split(".")  # a file, or a room and a file of it
    page = (DOCS / "methods" / f"{'_'.join(p for p in places if p != 'trainer')}.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")] for line in page.splitlines() if line.startswith("| `")]
    defaults = {row[1].strip("`"): row[3] for row in rows if len(row) == 7}
    assert defaults == {
        field.name: {"None": "null", "False": "false", "True": "true"}.get(str(field.default), str(field.default))
        for field in dataclasses.fields(trainer.Hyperparameters)
    }
    assert name in page
