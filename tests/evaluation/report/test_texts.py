"""Cells, Markdown and LaTeX."""

from __future__ import annotations

import re

import pytest

from nnunet_ssl.evaluation.report import latex, markdown
from nnunet_ssl.evaluation.report.aggregate import Comparison, Spread
from nnunet_ssl.evaluation.report.grids import Grid, Text, class_grid, main_grid, p_text, spread_grid
from nnunet_ssl.evaluation.report.load import Place
from nnunet_ssl.evaluation.report.quantities import MINUS, MISSING, QUANTITIES
from nnunet_ssl.evaluation.report.tables import Cell, Row, Table

TIMES = "\u00d7"


def cell(mean, difference=None, p=None):
    comparison = (
        None if difference is None else Comparison(difference, (difference - 0.1, difference + 0.1), p, 8, 8, 8)
    )
    return Cell(Spread(mean, 0.05, None, 0.01, 8), mean, comparison, p)


def table_row(trainer, control, dice, hd95):
    cells = {(name, metric): c for name in ("mean", "tumor") for metric, c in (("dice", dice), ("hd95", hd95))}
    counts = {"mean": 3, "tumor": 3}
    return Row(
        trainer, control, cells, counts, {"mean": 0, "tumor": 0}, {"mean": 8, "tumor": 8}, 2, 0.5, 1.0, 2048.0, None
    )


@pytest.fixture
def table():
    rows = [
        table_row("nnUNetTrainerSupervised", True, cell(0.7), cell(4.0)),
        table_row("nnUNetTrainerX_1", False, cell(0.8, 0.1, 0.04), cell(5.0, 1.0, 0.0004)),
        table_row("nnUNetTrainerY", False, cell(0.7, 0.2, 0.05), cell(3.0, -1.0, 0.05)),
    ]
    place = Place("Dataset001_T", "2d", "nnUNetPlans", "validation")
    return Table(place, "n6", (5, 6), (10, 11), "mm", ("dice", "hd95"), ("tumor",), rows)


def test_main_grid(table):
    grid = main_grid(table)
    assert grid.title == "Split n6: 5 to 6 labelled cases, labels of 10 to 11 withheld"
    assert sum(span for _, span in grid.groups) == len(grid.columns) == 12
    assert {len(row) for row in grid.rows} == {12}
    control, better, unclear = grid.rows
    texts = ["70.0", MISSING, MISSING, "4.00", MISSING, MISSING, "3", "0", "0.5", "2.0", "8"]
    assert [c.main for c in control] == ["Supervised (control)", *texts]
    assert better[1:4] == [Text("80.0", "± 5.0"), Text("+10.0", "[0.0, +20.0]", True), Text("0.040", "better", True)]
    assert better[4:7] == [Text("5.00", "± 0.05"), Text("+1.00", "[+0.90, +1.10]", True), Text("<0.001", "worse", True)]
    assert better[9] == Text("0.5", f"{TIMES} 1.00") and better[11] == Text("8", "2 trainings")
    assert unclear[3] == Text("0.050") and not any(c.bold for c in unclear + control)  # 0.05 is not below 0.05
    assert unclear[5] == Text(f"{MINUS}1.00", f"[{MINUS}1.10, {MINUS}0.90]")
    assert grid.emphasised == [0]


def test_without_control_no_column_of_comparisons(table):
    rows = [r for r in table.rows if not r.control]
    table.rows[:] = rows
    headings = [title for title, _ in main_grid(table).columns]
    assert "p" not in headings and "difference" not in headings and len(headings) == 8
    assert "difference" not in [title for title, _ in class_grid(table).columns]


def test_further_grids(table):
    spread, classes = spread_grid(table), class_grid(table)
    assert [c.main for c in spread.rows[0]] == [
        "Supervised (control)", "Dice, %", "70.0", "5.0", MISSING, "1.0", "70.0", MISSING, MISSING, "8", "2",
    ]  # fmt: skip
    assert spread.emphasised == [0, 1]
    assert [c.main for c in classes.rows[1]] == ["tumor", "X_1", "80.0", "+10.0", "5.00", "+1.00", "3", "0", "8"]
    assert not any(c.bold for c in classes.rows[2])


@pytest.mark.parametrize(("p", "text"), [(None, MISSING), (0.0004, "<0.001"), (0.0496, "0.050"), (1.0, "1.000")])
def test_p_text(p, text):
    assert p_text(p) == text


@pytest.mark.parametrize(
    ("metric", "value", "signed", "text"),
    [
        ("dice", 0.87654, False, "87.7"),
        ("dice", -0.00001, True, "0.0"),
        ("dice", -0.02, True, f"{MINUS}2.0"),
        ("hd95", 3.456, True, "+3.46"),
        ("hd95", None, False, MISSING),
        ("hd95", float("nan"), False, MISSING),
    ],
)
def test_numbers(metric, value, signed, text):
    assert QUANTITIES[metric].text(value, signed) == text


def test_markdown_table():
    grid = Grid(
        "t", [("", 1), ("Dice, %", 1)], [("a|b", ""), ("mean", "± std")], [[Text("x|y"), Text("1", "± 2", True)]]
    )
    assert markdown.grid_lines(grid) == [
        "| a\\|b | Dice, % mean (± std) |",
        "|:--|--:|",
        "| x\\|y | **1 ± 2** |",
    ]


def test_latex_escapes():
    assert latex.escape("50% of A_1 & B#2 {$x^2~\\}") == (
        r"50\% of A\_1 \& B\#2 \{\$x\textasciicircum{}2\textasciitilde{}\textbackslash{}\}"
    )
    assert latex.escape(f"{MINUS}0.1 ± 2 {TIMES} <0.001 {MISSING}") == r"$-$0.1 $\pm$ 2 $\times$ $<$0.001 --"


def test_latex_table(table):
    text = latex.table(main_grid(table), "A_1 & more")
    assert r"\caption{A\_1 \& more}" in text
    assert r"X\_1 & 80.0 $\pm$ 5.0 & \textbf{+10.0 [0.0, +20.0]} & \textbf{0.040 better}" in text
    assert r"\cmidrule(lr){2-4} \cmidrule(lr){5-7}" in text
    alignment = re.search(r"\\begin{tabular}{(\w+)}", text)[1]
    assert alignment == "l" + 11 * "r"
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 5
    assert [len(re.findall(r"(?<!\\)&", line)) for line in lines[1:]] == 4 * [11]
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    assert text.count("{") == text.count("}")
