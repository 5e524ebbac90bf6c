"""The table of rounds, and the page."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from nnunet_ssl.evaluation.scoring.definitions import COLUMNS
from nnunet_ssl.selftrain.keys import Keys
from nnunet_ssl.selftrain.report.pictures import examples
from nnunet_ssl.selftrain.report.rounds import rounds_table
from nnunet_ssl.selftrain.report.tables import coverage_text
from nnunet_ssl.selftrain.report.values import results_of
from nnunet_ssl.selftrain.report.write import write_report
from tests.selftrain.fakes import WORDS, Place, run

ONE = (*WORDS, "--rounds", "1", "--threshold", "0.5", "--voxels", "ignore", "--voxel-confidence", "0")
DICE = {"round0__train__0": (0.6, 0.5), "round0__train__1": (0.8, 0.3), "round1__train__0": (0.7, 0.7),
        "round1__control": (0.65, 0.55)}  # fmt: skip


@pytest.fixture
def done(place: Place, capsys) -> Place:
    """A run of one round, whose evaluations are replaced by known numbers: Dice of the ball and of the box."""
    assert run(place, *ONE) == 0
    for step, values in DICE.items():
        rows = []
        for name, label, dice in zip(("ball", "box"), (1, 2), values, strict=True):
            row = {"case": "tiny_005", "class": name, "label": label, "status": "ok", "dice": dice, "hd95": 10 * dice}
            rows.append(dict.fromkeys(COLUMNS, "1") | row)
        pd.DataFrame(rows, columns=COLUMNS).to_csv(place.out / "jobs" / step / "evaluation.csv", index=False)
    return place


def test_rounds_beside_the_control(done: Place):
    settled = done.settled()
    keys = Keys(settled)
    table = rounds_table(settled, keys, results_of(settled, keys), {}).set_index("row")
    assert table["dice"].tolist() == pytest.approx([0.55, 0.7, 0.6])
    assert table.loc["0, the control", "dice_models"] == pytest.approx(0.55)  # (0.55 + 0.55) / 2
    assert table["hd95"].tolist() == pytest.approx([5.5, 7.0, 6.0])
    assert table.loc["1", "dice_difference"] == pytest.approx(0.15)  # to the model of the same seed
    assert table.loc["control, as long", "dice_difference"] == pytest.approx(0.05)
    assert table["trainings"].tolist() == [2, 3, 1] and table["epochs"].tolist() == [2, 2, 4]
    assert table["models"].tolist() == [2, 1, 1]
    assert table.loc["1", ["kept", "pool"]].tolist() == [6, 6]
    assert table["warnings"].eq("").all()
    settled.settings = replace(settled.settings, transductive=True)
    table_2 = rounds_table(settled, keys, results_of(settled, keys), {})
    assert table_2["warnings"].str.startswith("Transductive: ").tolist() == [True] * 3
    seconds = [sum(done.record(step)["seconds"] for step in keys.steps if step.startswith("round0"))]
    assert table.loc["0, the control", "hours"] == pytest.approx(seconds[0] / 3600)
    assert table.loc["1", "hours"] > table.loc["0, the control", "hours"]


def test_the_page(done: Place):
    said = write_report(done.settled())
    assert said.startswith(
        "After round 1: Dice 70.0 % on 1 validation cases; the labelled cases alone give 55.0 %, and 60.0 % when "
        "trained as long as all rounds.\n"
    )
    report = done.out / "report"
    text, page = (report / "report.md").read_text(), (report / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 1 and "http" not in page
    for words in ("Selection of round 1", "6 of 6 cases are kept", "control, as long", "nnUNetv2_export_model_to_zip"):
        assert words in text and words in page
    rounds = pd.read_csv(report / "rounds.csv")
    assert rounds["dice"].tolist() == pytest.approx([0.55, 0.7, 0.6])
    assert (report / "figures" / "round_1_cases.png").read_bytes()[:4] == b"\x89PNG"


def test_warnings_stand_in_the_page(place: Place, capsys):
    assert run(place, *ONE, "--transductive") == 0
    for step in DICE:
        (place.out / "jobs" / step / "evaluation.csv").unlink()
    write_report(place.settled())  # of a selection alone, before any student is judged
    text = (place.out / "report" / "report.md").read_text()
    page, selection = text.split("## Selection of round 1")
    assert all("Transductive: test images may be among those without label" in part for part in (page, selection))
    assert "Selection of round 1" in text and "## Rounds" not in text


def test_look_ends_after_the_next_selection_and_the_same_command_without_it_goes_on(place: Place, capsys):
    words = (*WORDS, "--rounds", "2", "--threshold", "0.5")
    assert run(place, *words, "--look") == 0
    assert place.state("round1__select") == "complete" and place.state("round1__dataset") == "waiting"
    assert run(place, *words, "--look") == 0
    assert place.state("round2__select") == "complete" and place.state("round2__dataset") == "waiting"
    assert run(place, *words) == 0
    assert place.state("round2__train__0") == "complete"


def test_which_cases_are_shown():
    table = pd.DataFrame({"case": list("abcdef"), "kept": [True, True, True, True, False, False]})
    assert examples(table) == {
        "c": "kept, in the middle", "d": "kept, least sure", "a": "kept, surest", "e": "dropped, surest"
    }  # fmt: skip
    assert examples(table[:1]) == {"a": "kept, in the middle"}
    assert examples(table[:0]) == {}


def test_classes_in_the_pseudo_labels(place: Place):
    assert run(place, *WORDS, "--rounds", "0") == 0
    columns = {"kept": [True, True, False], "unusual_volumes": ["box", "", "box"], "reason": ["", "", ""]}
    for name, values in (("ball", [2.0, 4.0, 6.0]), ("box", [0.0, 3.0, 1.0])):
        columns |= {f"volume_ml_{name}": values, f"score_{name}": [1.0, 0.5, 0.0]}
        columns |= {f"true_dice_{name}": [0.9, 0.7, 0.2]}
    table = coverage_text(place.settled(), pd.DataFrame(columns))
    assert [[cell.main for cell in row] for row in table.rows] == [
        ["ball", "3", "2", "0.500", "3.0", "0", "80.0", "60.0"],
        ["box", "2", "1", "0.500", "3.0", "1", "80.0", "60.0"],
    ]
