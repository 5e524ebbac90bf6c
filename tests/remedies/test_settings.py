"""Complaints about plans, splits and the environment: obeyed as printed, each is gone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_ssl.cli import main
from nnunet_ssl.doctor.environment import environment_findings
from nnunet_ssl.doctor.examine import examine_dataset
from nnunet_ssl.doctor.report import WRONG, Section, render
from nnunet_ssl.planning.plans_copy import write_plans_copy
from tests.remedies.obey import obey
from tests.remedies.sites import that_spoke


def of_command(*words: str) -> Callable[[pytest.CaptureFixture], str]:
    """What a command says on stderr; empty if it succeeds."""

    def ask(capsys: pytest.CaptureFixture) -> str:
        capsys.readouterr()
        failed = main([*words]) != 0
        return capsys.readouterr().err.removeprefix(f"nnunet_ssl {words[0]}: ") if failed else ""

    return ask


def of_doctor(item: str) -> Callable[[pytest.CaptureFixture], str]:
    """The WRONG finding of that item."""

    def ask(capsys: pytest.CaptureFixture) -> str:
        sections = [Section("", environment_findings()), *examine_dataset(901)]
        wrong = [f for section in sections for f in section.findings if f.mark == WRONG and f.item == item]
        return render([Section("", wrong)]) if wrong else ""

    return ask


def damage(base: Path) -> None:
    assert main(["splits", "-d", "901", "--fractions", "0.1"]) == 0
    path = base / "splits_ssl.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))


def stale(base: Path) -> None:
    write_plans_copy(901, name="q", training={"num_epochs": 3})
    plans = json.loads((base / "nnUNetPlans.json").read_text())
    plans["configurations"]["2d"]["use_mask_for_norm"] = [True]
    (base / "nnUNetPlans.json").write_text(json.dumps(plans))


def nothing(base: Path) -> None:
    """The fault is there from the start."""


SPLIT = ("plans", "-d", "901", "--split", "l10")
# name -> what brings it about, who is asked, words of the message, the place that advises (see sites.py)
ROWS = {
    "no splits yet": (nothing, of_command(*SPLIT), "There are no splits yet", "data.splits:read_splits 1"),
    "damaged splits": (damage, of_command(*SPLIT), "edited by hand or is damaged", "data.splits:read_splits 5"),
    "damaged splits, doctor": (
        damage,
        of_doctor("splits_ssl.json"),
        "edited by hand or is damaged",
        "data.splits:read_splits 5",
    ),
    "labelled cases not preprocessed": (
        lambda base: [shutil.rmtree(base / f"nnUNetPlans_{name}") for name in ("2d", "3d_fullres")],
        of_command("splits", "-d", "901", "--fractions", "0.1"),
        "No configuration of nnUNetPlans is preprocessed",
        "data.folders:labeled_cases 1",
    ),
    "a copy older than its source, doctor": (
        stale,
        of_doctor("q"),
        "q is older than nnUNetPlans",
        "doctor.settings_files:_block 1",
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_obeyed_the_complaint_is_gone(make_dataset, monkeypatch, capsys, name):
    fault, ask, says, site = ROWS[name]
    fault(make_dataset(preprocess=False))
    with that_spoke() as spoke:
        message = ask(capsys)
    assert says in message and site in spoke
    obey(message, monkeypatch, {"CONFIGURATION": "3d_fullres"})
    assert ask(capsys) == ""


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "nnUNet_extTrainer"])
def test_variables_that_are_not_set(make_dataset, monkeypatch, tmp_path, variable):
    make_dataset(preprocess=False)
    monkeypatch.delenv(variable, raising=False)

    def wrong() -> list:
        return [f for f in environment_findings() if f.item == variable and f.mark == WRONG]

    (finding,) = wrong()
    obey(finding.remedy, monkeypatch, {f"/path/to/{variable}": str(tmp_path / "folder")})
    if wrong():  # the folder is not there yet
        obey(wrong()[0].remedy.split(",")[0], monkeypatch)
    assert wrong() == []
