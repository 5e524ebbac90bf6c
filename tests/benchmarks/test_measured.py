"""benchmarks/measured.py: the shipped means are those of the runs."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import measured
import which_method

from nnunet_ssl.recommendation.evidence import Measured, evidence


def test_the_shipped_means_are_current():
    shipped = pd.read_csv(measured.MEASURED)
    pd.testing.assert_frame_equal(shipped, measured.measured().reset_index(drop=True), check_dtype=False)


def test_the_page_that_names_a_trainer_is_current():
    assert measured.page() == which_method.PAGE.read_text(encoding="utf-8"), "run python benchmarks/measured.py"


def test_the_page_follows_the_rows():
    found = Measured("data, 1 of 9 labelled", 3, 500, "cost", "nnUNetTrainerCPS", 2, 0.7, 0.01, 0.6, 2, float("nan"))
    single = replace(found, trainer="nnUNetTrainerUniMatch", runs=1, dice=0.9, spread=0.0)
    page = "before\n<!-- measured: NAME -->\nold\n<!-- end -->\nafter\n"
    advice, compared, methods = (
        which_method.updated(page.replace("NAME", name), [single, found])
        for name in ("advice", "comparisons", "methods")
    )
    best = (
        "[data, 1 of 9 labelled](benchmarks/cost.md): Dice 0.700 (2 runs), nnU-Net on the same labels 0.600 (2 runs) |"
    )
    assert f"any, 3D | any | `nnUNetTrainerCPS` | {best}" in advice
    assert f"any, 2D | any | `nnUNetTrainerCPS` | in other dimensions {best}" in advice
    assert "| `nnUNetTrainerUniMatch` | 1 | 0.900 | +0.300 |  | no: one run |" in compared
    assert "| `nnUNetTrainerCPS` | 2 | 0.700 | +0.100 | 0.010 | yes |" in compared
    assert "| [CPS](methods/cps.md) | `nnUNetTrainerCPS` | 0.700 (2 runs) | about 2.3 |" in methods
    assert "| [DHC](methods/dhc.md) | `nnUNetTrainerDHC` | not measured |" in methods
    assert "Supervised" not in methods and "UXNet`" not in methods.replace("DKUXNet`", "")
    for text in (advice, compared, methods):
        assert text.startswith("before\n") and text.endswith("<!-- end -->\nafter\n") and "\nold\n" not in text


def test_means_leave_out_other_settings_and_lengths(monkeypatch, tmp_path):
    lines = [
        "dataset,split,trainer,hyperparameters,steps,seed,bfloat16,dice",
        "ACDC,p3,nnUNetTrainerSupervised,,2000,0,False,0.6",
        "ACDC,p3,nnUNetTrainerSupervised,,2000,1,False,0.7",
        "ACDC,p3,nnUNetTrainerSupervised,,1000,0,False,0.1",
        "ACDC,all,nnUNetTrainerSupervised,,2000,0,False,0.9",
        "ACDC,p3,nnUNetTrainerCPS,,2000,0,False,0.74",
        "ACDC,p3,nnUNetTrainerCPS,,2000,1,True,0.8",
        "ACDC,p3,nnUNetTrainerCPS,balance=crest,2000,0,False,0.2",
    ]
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(lines))
    monkeypatch.setattr(measured, "RUNS", path)
    (row,) = measured.measured().to_dict("records")
    assert (row["trainer"], row["runs"], row["dice"], row["spread"]) == ("nnUNetTrainerCPS", 2, 0.77, 0.06)
    assert (row["control"], row["control_runs"], row["all_labels"]) == (0.65, 2, 0.9)


def test_every_row_names_a_page_that_shows_its_trainer():
    for row in evidence():
        page = (measured.ROOT / "docs" / "benchmarks" / f"{row.page}.md").read_text(encoding="utf-8")
        assert row.trainer in page
