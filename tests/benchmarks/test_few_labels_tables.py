"""The tables written by hand on the pages of few labels are what follows from the runs in few_labels_runs.csv."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import measured

PAGES = measured.ROOT / "docs" / "benchmarks"
CLASSES = {"RV": "dice_1", "Myo": "dice_2", "LV": "dice_3"}
ALL = "the control with all"  # the row of the upper bound begins so


def table(dataset: str) -> list[dict[str, str]]:
    """Rows of the page's first table of trainers, as title -> cell; the trainer's cell is "trainer"."""
    page = (PAGES / f"{measured.COMPARISONS[dataset]['page']}.md").read_text(encoding="utf-8")
    lines = page[page.index("| trainer | seeds") :].partition("\n\n")[0].splitlines()
    title, _, *rows = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(title, row, strict=True)) for row in rows]


def runs_of(dataset: str, row: dict[str, str]) -> pd.DataFrame:
    """The runs that a row is about, of the table's number of steps."""
    runs = pd.read_csv(measured.RUNS)
    own = runs[(runs["dataset"] == dataset) & (runs["steps"] == measured.COMPARISONS[dataset]["steps"])]
    if row["trainer"].startswith(ALL):
        return own[(own["split"] == "all") & (own["trainer"] == measured.CONTROL)]
    name, *settings = re.findall(r"`([^`]+)`", row["trainer"])
    own = own[(own["split"] != "all") & (own["trainer"] == name)]
    return own[own["hyperparameters"].fillna("") == " ".join(settings)]


def close(text: str, value: float) -> bool:
    """Whether a number in a table is the value, rounded to as many decimals; the half may be rounded either way."""
    decimals = len(text.partition(".")[2])
    return abs(float(text) - value) <= 0.5 * 10**-decimals + 1e-9


def wrong(dataset: str, row: dict[str, str], control: float, everything: float) -> list[str]:
    """Titles of the cells that are not what the runs give."""
    runs = runs_of(dataset, row)
    mean, seeds = runs["dice"].mean(), re.findall(r"0\.\d+", row["seeds 0, 1, 2"])
    expected = {"mean": mean} | {name: runs[column].mean() for name, column in CLASSES.items() if name in row}
    if measured.CONTROL not in row["trainer"] and not row["trainer"].startswith(ALL):
        expected["difference to the control"] = mean - control
        if mean > control:
            expected["of the way to all labels"] = 100 * (mean - control) / (everything - control)
    found = [name for name, value in expected.items() if row[name] and not close(row[name].removesuffix(" %"), value)]
    found += [name for name in expected if not row[name] and not row["trainer"].startswith(ALL)]
    same = len(seeds) == len(runs) and all(map(close, sorted(seeds), sorted(runs["dice"])))
    return found if same else [*found, "seeds 0, 1, 2"]


@pytest.mark.parametrize("dataset", measured.COMPARISONS)
def test_the_tables_are_those_of_the_runs(dataset: str):
    rows = table(dataset)
    (first,) = (row for row in rows if measured.CONTROL in row["trainer"])
    (last,) = (row for row in rows if row["trainer"].startswith(ALL))
    control, everything = runs_of(dataset, first)["dice"].mean(), runs_of(dataset, last)["dice"].mean()
    found = {row["trainer"]: titles for row in rows if (titles := wrong(dataset, row, control, everything))}
    assert found == {}


@pytest.mark.parametrize("dataset", measured.COMPARISONS)
def test_every_trainer_with_its_defaults_has_a_row(dataset: str):
    shown = {re.findall(r"`([^`]+)`", row["trainer"])[0] for row in table(dataset) if "`" in row["trainer"]}
    means = measured.measured()
    known = means.loc[means["page"] == measured.COMPARISONS[dataset]["page"], "trainer"]
    assert {*known, measured.CONTROL} == shown


def test_what_is_wrong_is_found():
    row = next(row for row in table("ACDC") if row["trainer"] == "`nnUNetTrainerFixMatch`")
    assert wrong("ACDC", row, 0.66138, 0.8734) == []
    assert wrong("ACDC", row | {"mean": "0.775"}, 0.66138, 0.8734) == ["mean"]
    assert wrong("ACDC", row | {"RV": ""}, 0.66138, 0.8734) == ["RV"]
    assert wrong("ACDC", row | {"seeds 0, 1, 2": "0.767, 0.769"}, 0.66138, 0.8734) == ["seeds 0, 1, 2"]
    assert wrong("ACDC", row, 0.655, 0.8734) == ["difference to the control", "of the way to all labels"]
