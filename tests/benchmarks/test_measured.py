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
    found = Measured(
        "data, 1 of 9 labelled", 3, 500, "cost", 2, "nnUNetTrainerCPS", 2, 0.7, 0.69, 0.71, 0.6, 0.58, 0.62, 2,
        float("nan"),
    )  # fmt: skip
    single = replace(found, trainer="nnUNetTrainerUniMatch", runs=1, dice=0.9, lowest=0.9, highest=0.9)
    apart = replace(found, trainer="nnUNetTrainerLDC", lowest=0.619, highest=0.781)
    page = "before\n<!-- measured: NAME -->\nold\n<!-- end -->\nafter\n"
    advice, compared, methods = (
        which_method.updated(page.replace("NAME", name), [single, found, apart])
        for name in ("advice", "comparisons", "methods")
    )
    best = (
        "[data, 1 of 9 labelled](benchmarks/cost.md): Dice 0.700 (2 runs), nnU-Net on the same labels 0.600 (2 runs) |"
    )
    assert f"any, 3D | any | `nnUNetTrainerCPS` | {best}" in advice
    assert f"any, 2D | any | `nnUNetTrainerCPS` | in other dimensions {best}" in advice
    assert "| `nnUNetTrainerUniMatch` | 1 | 0.900 |  | 0.580 to 0.620 | +0.300 | no: one run |" in compared
    assert "| `nnUNetTrainerCPS` | 2 | 0.700 | 0.690 to 0.710 | 0.580 to 0.620 | +0.100 | yes |" in compared
    assert "| 0.619 to 0.781 | 0.580 to 0.620 | +0.100 | no: not every run is above nnU-Net's best |" in compared
    assert "measured with 2 (data) foreground classes" in advice
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
    assert (row["trainer"], row["runs"], row["dice"]) == ("nnUNetTrainerCPS", 2, 0.77)
    assert (row["lowest"], row["highest"]) == (0.74, 0.8)
    assert (row["control"], row["control_runs"], row["all_labels"]) == (0.65, 2, 0.9)
    assert (row["control_lowest"], row["control_highest"]) == (0.6, 0.7)


def test_a_gain_is_rounded_once():
    """The shown means of PLGCL on ACDC differ by 0.084, the means by 0.0833."""
    (plgcl,) = (row for row in evidence() if row.trainer == "nnUNetTrainerPLGCL" and row.dimensions == 2)
    assert (f"{plgcl.dice:.3f}", f"{plgcl.control:.3f}", f"{plgcl.gain:+.3f}") == ("0.745", "0.661", "+0.083")
    runs = pd.read_csv(measured.RUNS).query("hyperparameters.isna() and dataset == 'ACDC' and split == 'p3'")
    means = runs[runs["steps"] == 2000].groupby("trainer")["dice"].mean()
    for row in evidence():
        if row.dimensions == 2:
            exact = means[row.trainer] - means["nnUNetTrainerSupervised"]
            assert f"| {exact:+.3f} | {'yes' if row.counts else 'no'}" in line_of(row)


def line_of(row: Measured) -> str:
    """The row's line in the second table of docs/which-method.md."""
    page = which_method.PAGE.read_text(encoding="utf-8").partition("<!-- measured: comparisons -->")[2]
    (line,) = (line for line in page.splitlines() if f"{row.page}.md" in line and f"| `{row.trainer}` |" in line)
    return line


def test_every_row_names_a_page_that_shows_its_trainer():
    for row in evidence():
        page = (measured.ROOT / "docs" / "benchmarks" / f"{row.page}.md").read_text(encoding="utf-8")
        assert row.trainer in page
