"""benchmarks/measured.py: the shipped means are those of the runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import measured

from nnunet_ssl.recommendation.evidence import evidence


def test_the_shipped_means_are_current():
    shipped = pd.read_csv(measured.MEASURED)
    pd.testing.assert_frame_equal(shipped, measured.measured().reset_index(drop=True), check_dtype=False)


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
