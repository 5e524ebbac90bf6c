"""What is recommended follows from what was measured, and from what a dataset allows."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from nnunet_ssl.demo.options import Options
from nnunet_ssl.recommendation.choice import FEW, choose, rank
from nnunet_ssl.recommendation.evidence import Measured, evidence
from nnunet_ssl.recommendation.facts import Facts
from nnunet_ssl.trainers import FIRST_CHOICE

FACTS = Facts("Dataset004_X", "3d_fullres", 3, 10, 200, 2, 0.4, 24.0, {})


def row(trainer: str, dimensions: int, dice: float, spread: float = 0.01) -> Measured:
    data = f"data of {dimensions} dimensions"
    return Measured(data, dimensions, 1000, "page", f"nnUNetTrainer{trainer}", 3, dice, spread, 0.6, 3, 0.9)


ROWS = (row("FixMatch", 2, 0.7), row("CPS", 2, 0.75), row("LDC", 2, 0.65, spread=0.06), row("FixMatch", 3, 0.8))


def test_measurements_of_as_many_dimensions_come_first():
    assert rank(FACTS, [*ROWS[:3], row("FixMatch", 3, 0.62)]) == ["nnUNetTrainerFixMatch", "nnUNetTrainerCPS"]
    assert rank(replace(FACTS, dimensions=2), ROWS) == ["nnUNetTrainerCPS", "nnUNetTrainerFixMatch"]


def test_a_gain_within_the_spread_of_the_runs_is_none():
    assert "nnUNetTrainerLDC" not in rank(FACTS, ROWS)
    lower = choose(FACTS, [row("FixMatch", 3, 0.59)])
    assert lower.trainer is None and "has gained more than its runs differ by" in lower.reasons[0]


def test_of_equals_the_one_that_gained_in_most_comparisons_is_first_and_then_the_cheapest():
    """2.2 times nnU-Net's step, 2.3 and 1.2; a difference as large as that between runs is none."""
    unimatch, cps, fixmatch = row("UniMatch", 2, 0.76), row("CPS", 2, 0.753), row("FixMatch", 2, 0.75)
    planar = replace(FACTS, dimensions=2)
    assert rank(planar, [unimatch, cps, fixmatch]) == [
        "nnUNetTrainerFixMatch", "nnUNetTrainerUniMatch", "nnUNetTrainerCPS",
    ]  # fmt: skip
    assert rank(planar, [unimatch, cps, fixmatch, row("CPS", 3, 0.7)])[0] == "nnUNetTrainerCPS"
    once = replace(row("CPS", 3, 0.7), runs=1)
    assert rank(planar, [unimatch, cps, fixmatch, once])[0] == "nnUNetTrainerFixMatch"
    assert rank(planar, [unimatch, cps, replace(fixmatch, dice=0.748)])[0] == "nnUNetTrainerUniMatch"
    assert "Next: nnUNetTrainerUniMatch" in (reasons := "\n".join(choose(planar, [unimatch, fixmatch]).reasons))
    assert "No difference" in reasons
    assert "No difference" not in "\n".join(choose(planar, [unimatch, replace(fixmatch, dice=0.7)]).reasons)


def test_one_run_is_not_enough():
    best = replace(row("UniMatch", 3, 0.89, spread=0.0), runs=1)
    assert choose(FACTS, [*ROWS, best]).trainer == "nnUNetTrainerFixMatch"


def test_what_refuses_the_data_is_not_recommended():
    refused = replace(FACTS, unsupported={"nnUNetTrainerFixMatch": "does not support regions"})
    assert choose(refused, ROWS).trainer == "nnUNetTrainerCPS"


def test_the_figures_are_those_of_the_rows():
    choice = choose(FACTS, ROWS)
    assert choice.trainer == "nnUNetTrainerFixMatch"
    text = "\n".join(choice.reasons)
    for figure in ("(2D): Dice 0.700 (3 runs)", "(3D): Dice 0.800", "same labels 0.600, all labels 0.900"):
        assert figure in text
    assert "Next: nnUNetTrainerCPS, Dice 0.750" in text


def test_without_images_there_is_nothing_to_learn_from():
    choice = choose(replace(FACTS, unlabeled=0), ROWS)
    assert choice.trainer is None and "no images without labels" in choice.reasons[0]


@pytest.mark.parametrize(("rarest", "said"), [(0.004, True), (0.2, False), (None, False)])
def test_rare_classes_are_pointed_out(rarest, said):
    lines = choose(replace(FACTS, rarest=rarest), ROWS).open_questions
    assert any("nnUNetTrainerSKCDF" in line and "0.40%" in line for line in lines) == said


def test_a_small_network_where_there_is_no_gpu():
    assert any("no GPU here" in line for line in choose(replace(FACTS, gpu=None), ROWS).open_questions)
    assert not any("no GPU here" in line for line in choose(FACTS, ROWS).open_questions)


def test_how_few_labels_were_measured_is_said_beside_how_many_there_are():
    (line,) = (line for line in choose(FACTS, ROWS).open_questions if line.startswith("Measured with"))
    assert f"{FEW} only; these data have 10 labelled cases" in line
    assert "nnunet_ssl headroom -d 4 -c 3d_fullres;" in line
    numbers = {int(re.search(r", (\d+) of \d+", row.data)[1]) for row in evidence()}
    assert FEW.startswith(" or ".join(map(str, sorted(numbers))) + " labelled")


def test_the_tables_recommend_what_readme_says():
    """README's first command, the site's and the demo's trainer are the one with the largest measured gain."""
    best = choose(FACTS, evidence()).trainer
    root = Path(__file__).resolve().parents[2]
    for page in ("README.md", "docs/index.md"):
        text = (root / page).read_text(encoding="utf-8")
        assert f"nnUNetv2_train 4 3d_fullres 0 -tr {best} " in text
    assert FIRST_CHOICE == best == choose(replace(FACTS, dimensions=2), evidence()).trainer
    assert Options(Path("demo")).trainer == best
