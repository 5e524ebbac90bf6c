"""What is recommended follows from what was measured, and from what a dataset allows."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from nnunet_ssl.demo.options import Options
from nnunet_ssl.recommendation.choice import choose, rank
from nnunet_ssl.recommendation.evidence import Measured, evidence
from nnunet_ssl.recommendation.facts import Facts
from nnunet_ssl.recommendation.open_questions import ENOUGH, FEW, NO_BETTER
from nnunet_ssl.trainers import FIRST_CHOICE

ROOT = Path(__file__).resolve().parents[2]
FACTS = Facts("Dataset004_X", "3d_fullres", 3, 10, 200, 2, 0.4, 24.0, {})


def row(trainer: str, dimensions: int, dice: float, spread: float = 0.01) -> Measured:
    """Runs around their mean; those of the control from 0.59 to 0.61."""
    return Measured(
        data=f"data of {dimensions} dimensions, 2 of 9 labelled", dimensions=dimensions, steps=1000, page="page",
        classes=dimensions, trainer=f"nnUNetTrainer{trainer}", runs=3, dice=dice, lowest=dice - spread / 2,
        highest=dice + spread / 2, control=0.6, control_lowest=0.59, control_highest=0.61, control_runs=3,
        all_labels=0.9,
    )  # fmt: skip


ROWS = (row("FixMatch", 2, 0.7), row("CPS", 2, 0.75), row("LDC", 2, 0.65, spread=0.09), row("FixMatch", 3, 0.8))


def test_measurements_of_as_many_dimensions_come_first():
    assert rank(FACTS, [*ROWS[:3], row("FixMatch", 3, 0.62)]) == ["nnUNetTrainerFixMatch", "nnUNetTrainerCPS"]
    assert rank(replace(FACTS, dimensions=2), ROWS) == ["nnUNetTrainerCPS", "nnUNetTrainerFixMatch"]


def test_a_gain_counts_where_the_worst_run_is_above_the_controls_best():
    assert "nnUNetTrainerLDC" not in rank(FACTS, ROWS)  # gains more than half of what its runs differ by
    assert [row("FixMatch", 3, dice, 0.04).counts for dice in (0.59, 0.63, 0.631)] == [False, False, True]
    apart = row("FixMatch", 3, 0.7, 0.16)  # its runs differ by more than it gains, and all are above the control's
    assert apart.counts and apart.gain < apart.spread
    lower = choose(FACTS, [row("FixMatch", 3, 0.59)])
    assert lower.trainer is None and lower.before is None
    assert lower.reasons == [
        "No trainer that supports these data has several runs that are all better than nnU-Net's best."
    ]


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
    *_, following = choose(planar, [unimatch, fixmatch]).reasons
    assert following == (
        "Next: nnUNetTrainerUniMatch, Dice 0.760 on data of 2 dimensions, 2 of 9 labelled (nnUNetTrainerFixMatch: "
        "0.750); a step takes about 2.2 times as long as nnU-Net's. This difference is not meaningful: it is smaller "
        "than the difference between runs of one trainer."
    )
    # in other dimensions than the data's, too
    (*_, elsewhere) = choose(FACTS, [unimatch, fixmatch, row("FixMatch", 3, 0.8)]).reasons
    assert elsewhere == following
    *_, behind = choose(planar, [unimatch, replace(fixmatch, dice=0.7)]).reasons
    assert behind.startswith("Next: nnUNetTrainerFixMatch, Dice 0.700") and "not meaningful" not in behind


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
    assert (
        "Cost: a step takes about 1.2 times as long as nnU-Net's on the same number of patches, that is about 2.4 "
        "times a step on the labelled patches alone. Memory beyond nnU-Net's: one copy of the network."
    ) in choice.reasons


def test_time_is_that_of_as_many_dimensions():
    (_, cost) = choose(replace(FACTS, labeled=5), [row("CMAformer", 3, 0.8)]).reasons
    assert "about 1.6 times as long" in cost and "about 3.2 times a step" in cost
    (_, cost) = choose(replace(FACTS, labeled=5, dimensions=2), [row("CMAformer", 2, 0.8)]).reasons
    assert "about 1.7 times as long" in cost and "about 3.4 times a step" in cost


@pytest.mark.parametrize(("gpu", "device"), [(24.0, ""), (None, " -device cpu")])
def test_with_many_labels_headroom_comes_first(gpu, device):
    facts = replace(FACTS, labeled=ENOUGH + 1, gpu=gpu)
    many, few = choose(facts, ROWS), choose(replace(facts, labeled=ENOUGH), ROWS)
    command = f"nnunet_ssl headroom -d 4 -c 3d_fullres{device}"
    assert many.before == command and few.before is None and many.trainer == few.trainer
    assert many.reasons[0].startswith("These data have 10 labelled cases. On the hippocampus nnU-Net was as good")
    assert many.reasons[1:] == few.reasons
    # where it is not asked for, it is pointed out
    assert not any(command in line for line in many.open_questions)
    assert any(f"{command}. To compare" in line for line in few.open_questions)


def test_how_many_labels_are_enough_is_the_figure_of_the_hippocampus():
    """The control of the first and the last fraction differ by less than its seeds do."""
    page = (ROOT / "docs" / "benchmarks" / "hippocampus.md").read_text(encoding="utf-8")
    line = r"^\| (\d+) / \d+ \(\d+ %\) \| `nnUNetTrainerSupervised` \| ([\d.]+) .* \| ([\d.]+) \|$"
    (first, dice, seeds), _, (last, other, _) = re.findall(line, page, re.MULTILINE)
    assert (int(first), int(last)) == (ENOUGH, NO_BETTER) and abs(float(dice) - float(other)) < float(seeds)


def test_without_images_there_is_nothing_to_learn_from():
    choice = choose(replace(FACTS, unlabeled=0), ROWS)
    assert choice.trainer is None and "no images without labels" in choice.reasons[0]


@pytest.mark.parametrize(("rarest", "said"), [(0.004, True), (0.2, False), (None, False)])
def test_rare_classes_are_pointed_out(rarest, said):
    lines = choose(replace(FACTS, rarest=rarest), ROWS).open_questions
    (line,) = [line for line in lines if "foreground class" in line] or [""]
    assert bool(line) == said == ("nnUNetTrainerSKCDF" in line and "0.40% of the labelled foreground" in line)


def test_how_many_classes_were_measured_is_said_where_there_are_more():
    """What was measured had 3 and 1, none of them rare."""
    said = [
        line
        for classes in (1, 3, 13)
        for line in choose(replace(FACTS, classes=classes), evidence()).open_questions
        if "foreground class" in line
    ]
    assert said == [
        "Measured with 3 (ACDC) and 1 (left atrium) foreground classes only, none of them rare; these data have 13."
    ]


def test_a_small_network_where_there_is_no_gpu():
    *_, small = choose(replace(FACTS, gpu=None), ROWS).open_questions
    *_, planned = choose(replace(FACTS, gpu=None, cpu_patch=(32, 32, 32)), ROWS).open_questions
    assert "no GPU here" in small and small.endswith("The network of these plans is small.")
    assert "no GPU here" in planned and "make plans with a small network and train it for 2000 steps" in planned
    assert not any("no GPU here" in line for line in choose(FACTS, ROWS).open_questions)


def test_how_few_labels_were_measured_is_said_beside_how_many_there_are():
    (line,) = (line for line in choose(FACTS, ROWS).open_questions if line.startswith("Measured with"))
    assert f"{FEW} only; these data have 10 labelled cases" in line
    numbers = {int(re.search(r", (\d+) of \d+", row.data)[1]) for row in evidence()}
    assert FEW.startswith(" or ".join(map(str, sorted(numbers))) + " labelled")


def test_the_tables_recommend_what_readme_says():
    """README's first command, the site's and the demo's trainer are the one with the largest measured gain."""
    best = choose(FACTS, evidence()).trainer
    for page in ("README.md", "docs/index.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert f"nnUNetv2_train 4 3d_fullres 0 -tr {best} " in text
    assert FIRST_CHOICE == best == choose(replace(FACTS, dimensions=2), evidence()).trainer
    assert Options(Path("demo")).trainer == best
