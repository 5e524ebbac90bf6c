"""`nnunet_ssl methods` as it is typed."""

from __future__ import annotations

import dataclasses
import re

import pytest

from nnunet_ssl.cli import main
from nnunet_ssl.methods import align
from nnunet_ssl.trainers import TRAINERS, find_trainer


def words(text: str) -> list[str]:
    """Without the wrapping of the lines."""
    return " ".join(text.split()).split()


@pytest.mark.parametrize("columns", [None, 60, 140])
def test_every_trainer_with_its_card_in_the_width_of_the_terminal(monkeypatch, capsys, columns):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["methods"]) == 0
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= (columns or 80)  # 80: into a pipe
    shown, position = words(output), 0
    for name in TRAINERS:
        position = shown.index(name, position)
        following = shown[position + 1 :]
        for fact in dataclasses.astuple(find_trainer(name).card):
            assert " ".join(words(fact)) in " ".join(following[:60]), (name, fact)
        assert f"{find_trainer(name).planned_epochs({})} epochs" in " ".join(following[:60])


def test_precision_is_told_of_presets_in_float32_alone(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["methods"]) == 0
    rows = re.findall(r"^(nnUNetTrainer\w+) (?:.+\n)+? +memory: (.*?) *$", capsys.readouterr().out, re.MULTILINE)
    memory = dict(rows)
    assert memory.keys() == TRAINERS.keys()
    assert memory["nnUNetTrainerFixMatch"] == "one copy of the network"
    assert memory["nnUNetTrainerFixMatch_paper"] == "none; in float32"
    presets = {name for name in TRAINERS if "_" in name}
    mixed = {"nnUNetTrainerPLGCL_paper", "nnUNetTrainerCMAformer_paper"}
    # the control under a publication's recipe trains like a preset
    expected = presets - mixed | {"nnUNetTrainerPublishedSupervised"}
    assert {name for name, text in memory.items() if text.endswith("; in float32")} == expected


@pytest.mark.parametrize("name", ["nnUNetTrainerMeanTeacher", "nnUNetTrainerMeanTeacher_5epochs"])
def test_hyperparameters_with_default_meaning_and_source(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["methods", "-tr", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{name}: Tarvainen & Valpola")
    rows = {line.split()[0]: line.rstrip() for line in lines[4:] if line.strip()}
    for field in dataclasses.fields(find_trainer(name).Hyperparameters):
        assert field.metadata["doc"] in rows[field.name]
        assert rows[field.name].endswith(field.metadata["source"])
    shown = " ".join(words(" ".join(lines)))
    assert "limit of the absolute noise" in shown and "[0 or more]" in shown and "[weak, strong]" in shown
    assert rows["ema_decay"].split()[1] == "0.99"
    assert rows["unlabeled_batch_size"].split()[1] == "null"
    assert "--hyperparameters nnUNetTrainerMeanTeacher:" in lines[-1]


@pytest.mark.parametrize("name", [*TRAINERS])
def test_hyperparameters_into_a_pipe_are_80_columns_wide_and_nothing_is_cut_off(name, monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert main(["methods", "-tr", name]) == 0
    output = capsys.readouterr().out
    table = [line for line in output.splitlines() if not line.startswith("Change them")]  # with a command to copy
    assert max(map(len, table)) <= 80
    assert "…" not in output
    assert {field.name for field in dataclasses.fields(find_trainer(name).Hyperparameters)} <= {*words(output)}


def test_a_trainer_without_hyperparameters(capsys):
    assert main(["methods", "-tr", "nnUNetTrainerSupervised"]) == 0
    assert "No hyper-parameters." in capsys.readouterr().out


def test_an_unknown_trainer(capsys):
    assert main(["methods", "-tr", "nnUNetTrainer"]) == 1
    assert 'trainer "nnUNetTrainer": it does not read splits' in capsys.readouterr().err
    assert main(["methods", "-tr", "nnUNetTrainerNope"]) == 1
    assert "nnU-Net does not find it.\nRun: nnunet_ssl methods" in capsys.readouterr().err


def test_columns_line_up():
    assert align([("a", "b"), ("long", "c")]) == ["a     b", "----  -", "long  c"]
