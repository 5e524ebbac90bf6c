"""Cells, Markdown and LaTeX."""

from __future__ import annotations

import math
import re

import pandas as pd
import pytest

from nnunet_ssl.evaluation.pages import escape_latex, markdown_table, render
from nnunet_ssl.evaluation.report.content import Part, Report, Section
from nnunet_ssl.evaluation.report.load import Place, Run
from nnunet_ssl.evaluation.report.quantities import MINUS, MISSING, QUANTITIES
from nnunet_ssl.evaluation.report.tables import NUMBERS, Table
from nnunet_ssl.evaluation.report.text_tables import Text, class_table, main_table, p_text, spread_table
from nnunet_ssl.evaluation.report.write import to_markdown

TIMES = "\u00d7"
CONTROL = "nnUNetTrainerSupervised"
PLACE = Place("Dataset001_T", "2d", "nnUNetPlans", "validation")


def numbers(trainer, mean, difference=None, p=None):
    """Of dice and hd95 in turn, for the foreground and for one class."""
    rows = []
    for name in ("mean", "tumor"):
        for metric, value, change, holm in zip(
            ("dice", "hd95"), mean, difference or 2 * [None], p or 2 * [None], strict=True
        ):
            row = {"trainer": trainer, "control": trainer == CONTROL, "class": name, "metric": metric, "trainings": 2}
            row |= {"mean": value, "std_cases": 0.05, "std_seeds": 0.01, "mean_ok": value, "cases": 8}
            row |= {"missed": 3, "false_positives": 0, "evaluations": 8, "seconds_per_step": 0.5, "time_ratio": 1.0}
            row |= {"peak_memory_mb": 2048.0}
            if change is not None:
                ends = {"difference_low": change - 0.1, "difference_high": change + 0.1, "compared_cases": 8}
                row |= {"difference": change, "p": holm, **ends, "p_holm": holm if name == "mean" else None}
            rows.append(row)
    return rows


def run(labeled, withheld):
    what = ("name", "Dataset001_T", "2d", "nnUNetPlans", CONTROL, "n6", "0", "0")
    return Run(*what, labeled, withheld, "complete", "", {}, {"validation": {"unit": "mm"}})


def table_of(rows):
    frame = pd.DataFrame(rows, columns=NUMBERS)
    return Table(PLACE, "n6", [run(5, 11), run(6, 10)], pd.DataFrame(), frame, ("dice", "hd95"), ("tumor",))


ROWS = [
    *numbers(CONTROL, (0.7, 4.0)),
    *numbers("nnUNetTrainerX_1", (0.8, 5.0), (0.1, 1.0), (0.04, 0.0004)),
    *numbers("nnUNetTrainerY", (0.7, 3.0), (0.2, -1.0), (0.05, 0.05)),
]


@pytest.fixture
def table():
    return table_of(ROWS)


def test_main_table(table):
    found = main_table(table)
    assert found.title == "Split n6: 5 to 6 labelled cases, labels of 10 to 11 withheld"
    assert found.groups == [("", 1), ("Dice, %", 3), ("HD95, mm", 3), ("structures", 2), ("cost", 2), ("", 1)]
    assert len(found.columns) == 12 and {len(row) for row in found.rows} == {12}
    control, better, unclear = found.rows
    texts = ["70.0", MISSING, MISSING, "4.00", MISSING, MISSING, "3", "0", "0.5", "2.0", "8"]
    assert [c.main for c in control] == ["Supervised (control)", *texts]
    assert better[1:4] == [Text("80.0", "± 5.0"), Text("+10.0", "[0.0, +20.0]", True), Text("0.040", "better", True)]
    assert better[4:7] == [Text("5.00", "± 0.05"), Text("+1.00", "[+0.90, +1.10]", True), Text("<0.001", "worse", True)]
    assert better[9] == Text("0.5", f"{TIMES} 1.00") and better[11] == Text("8", "2 training runs")
    assert unclear[3] == Text("0.050") and not any(c.bold for c in unclear + control)  # 0.05 is not below 0.05
    assert unclear[5] == Text(f"{MINUS}1.00", f"[{MINUS}1.10, {MINUS}0.90]")
    assert found.control == [True, False, False]


def test_without_control_no_column_of_comparisons():
    table = table_of(ROWS[4:])
    headings = [column.title for column in main_table(table).columns]
    assert "p" not in headings and "difference" not in headings and len(headings) == 8
    assert "difference" not in [column.title for column in class_table(table).columns]


def test_memory_of_gpus_has_a_column_where_it_was_measured():
    found = main_table(table_of([row | {"peak_gpu_memory_mb": 1536.0} for row in ROWS]))
    assert [column.title for column in found.columns][-3:-1] == ["memory", "GPU memory"]
    assert found.rows[0][-2] == Text("1.5")


def test_further_tables(table):
    spread, classes = spread_table(table), class_table(table)
    assert [c.main for c in spread.rows[0]] == [
        "Supervised (control)", "Dice, %", "70.0", "5.0", MISSING, "1.0", "70.0", MISSING, MISSING, "8", "2",
    ]  # fmt: skip
    assert spread.control == [True, True, False, False, False, False] and spread.groups == []
    assert [c.main for c in classes.rows[1]] == ["tumor", "X_1", "80.0", "+10.0", "5.00", "+1.00", "3", "0", "8"]
    assert not any(c.bold for row in classes.rows for c in row)


@pytest.mark.parametrize(("p", "text"), [(math.nan, MISSING), (0.0004, "<0.001"), (0.0496, "0.050"), (1.0, "1.000")])
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
    assert markdown_table(["a|b", "Dice"], [["x|y", "**1 ± 2**"], ["001", "1.50"]], [True, False]).splitlines() == [
        "| a\\|b   |      Dice |",
        "|:-------|----------:|",
        "| x\\|y   | **1 ± 2** |",
        "| 001    |      1.50 |",
    ]
    assert markdown_table(["a", "b"], [], [True, False]).splitlines()[0] == "| a   | b   |"


def test_markdown_of_a_table(table):
    head, _, _, better, _ = re.sub(" +", " ", to_markdown(main_table(table))).splitlines()
    assert head.startswith("| trainer | Dice, % mean (± std) | Dice, % difference (95 % interval) | Dice, % p (Holm) |")
    assert better.startswith("| X_1 | 80.0 ± 5.0 | **+10.0 [0.0, +20.0]** | **0.040 better** |")


def test_latex_escapes():
    assert escape_latex("50% of A_1 & B#2 {$x^2~\\}") == (
        r"50\% of A\_1 \& B\#2 \{\$x\textasciicircum{}2\textasciitilde{}\textbackslash{}\}"
    )
    assert escape_latex(f"{MINUS}0.1 ± 2 {TIMES} <0.001 {MISSING}") == r"$-$0.1 $\pm$ 2 $\times$ $<$0.001 --"


def test_latex_table(table):
    part = Part(main_table(table), ["A_1 & more."], ["a job: failed"], [])
    text = render("report.tex", report=Report("R_1", [], [Section("S_1", [part])], [], []))
    assert text.startswith("% R\\_1\n")
    assert r"\caption{S\_1. Split n6: 5 to 6 labelled cases, labels of 10 to 11 withheld. A\_1 \& more. Failed" in text
    assert r"or incomplete: 1.}" in text
    assert r"{X\_1} & {80.0 $\pm$ 5.0} & \textbf{+10.0 [0.0, +20.0]} & \textbf{0.040 better}" in text
    assert r"\cmidrule(lr){2-4} \cmidrule(lr){5-7} \cmidrule(lr){8-9}" in text
    alignment = re.search(r"\\begin{tabular}{(\w+)}", text)[1]
    assert alignment == "l" + 11 * "r"
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 5
    assert [len(re.findall(r"(?<!\\)&", line)) for line in lines[1:]] == 4 * [11]
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    assert text.count("{") == text.count("}")
