"""The numbers of the tables against values computed by hand, see the head of synthetic.py."""

from __future__ import annotations

import json
import math
import warnings

import pandas as pd
import pytest

from nnunet_ssl.evaluation.report.load import load_benchmark
from nnunet_ssl.evaluation.report.records import COLUMNS, to_frame
from nnunet_ssl.evaluation.report.statistics import bootstrap_interval
from nnunet_ssl.evaluation.report.tables import make_tables
from tests.evaluation.report import synthetic
from tests.evaluation.report.synthetic import CONTROL, DATASET, METHOD_A, METHOD_B, row, write_evaluation

NO_SUBJECTS = ({}, "there are none")
METRICS = ("dice", "hd95")
N6 = {"splits": {"n6": (6, 10)}}


def tables_of(folder, control=CONTROL, subjects=NO_SUBJECTS, metrics=("dice",)):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tables = make_tables(load_benchmark(str(folder)), metrics, control, {DATASET: subjects})
    return {(table.split, table.place.scope): table for table in tables}


def rows_of(table):
    return {row.trainer: row for row in table.rows}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return tables_of(synthetic.build(tmp_path_factory.mktemp("benchmark")), metrics=METRICS)


def test_one_table_per_split_the_smallest_first_and_the_control_on_top(tables):
    assert list(tables) == [("n6", "validation"), ("n12", "validation")]
    table = tables["n6", "validation"]
    assert [r.trainer for r in table.rows] == [CONTROL, METHOD_A, METHOD_B]
    assert (table.labeled, table.withheld, table.distance_unit) == ((6, 6), (10, 10), "mm")
    assert table.classes == ("ball", "box")


def test_mean_and_spread_of_the_control(tables):
    """Per case, over classes and seeds: 0.46, 0.56, 0.66, 0.76. Folds 0.51, 0.71. Seeds 0.60, 0.62."""
    cell = rows_of(tables["n6", "validation"])[CONTROL].cells["mean", "dice"]
    assert cell.spread.mean == pytest.approx(0.61)
    assert cell.spread.over_cases == pytest.approx(math.sqrt(2 * (0.15**2 + 0.05**2) / 3))
    assert cell.spread.over_folds == pytest.approx(0.2 / math.sqrt(2))
    assert cell.spread.over_seeds == pytest.approx(0.02 / math.sqrt(2))
    assert cell.spread.cases == 4
    assert cell.ok_mean == pytest.approx(0.61)
    assert cell.interval == pytest.approx(bootstrap_interval([0.46, 0.56, 0.66, 0.76]))
    assert cell.comparison is None and cell.p is None


def test_difference_to_the_control(tables):
    rows = rows_of(tables["n6", "validation"])
    better, worse = (rows[name].cells["mean", "dice"] for name in (METHOD_A, METHOD_B))
    assert better.comparison.difference == pytest.approx(0.025)
    assert better.comparison.interval == pytest.approx(bootstrap_interval([0.01, 0.02, 0.03, 0.04]))
    assert worse.comparison.difference == pytest.approx(-0.1)
    assert worse.comparison.interval == pytest.approx((-0.1, -0.1))
    for cell in (better, worse):
        assert cell.comparison.p == pytest.approx(0.125)  # 4 differences of one sign
        assert cell.p == pytest.approx(0.25)  # two methods
        assert (cell.comparison.cases, cell.comparison.units, cell.comparison.evaluations) == (4, 4, 8)


def test_distances_have_the_opposite_sign(tables):
    cell = rows_of(tables["n6", "validation"])[METHOD_A].cells["mean", "hd95"]
    assert cell.spread.mean == pytest.approx(10 * (1 - 0.635))
    assert cell.comparison.difference == pytest.approx(-0.25)


def test_classes_by_themselves(tables):
    rows = rows_of(tables["n6", "validation"])
    assert rows[CONTROL].cells["ball", "dice"].spread.mean == pytest.approx(0.56)
    assert rows[CONTROL].cells["box", "dice"].spread.mean == pytest.approx(0.66)
    assert rows[METHOD_A].cells["box", "dice"].comparison.difference == pytest.approx(0.025)
    assert rows[METHOD_A].cells["box", "dice"].p is None  # classes are described, not tested


def test_costs(tables):
    rows = rows_of(tables["n6", "validation"])
    assert rows[CONTROL].seconds_per_step == pytest.approx(0.55)
    assert [rows[t].time_ratio for t in (CONTROL, METHOD_A, METHOD_B)] == pytest.approx([1, 1, 3])
    assert rows[METHOD_B].memory_mb == 2560 and rows[METHOD_B].gpu_memory_mb is None
    assert [r.jobs for r in rows.values()] == [4, 4, 4]


def test_a_failed_job_is_named_and_left_out_on_both_sides(tables):
    """A lacks seed 1 of fold 1. Its cases: 0.57, 0.68, 0.78, 0.89; only fold 0 has both seeds: 0.615 and 0.635."""
    table = tables["n12", "validation"]
    (reason,) = table.incomplete
    assert reason == f"{synthetic.FAILED}: failed, in stage train: RuntimeError: out of memory & time_100%"
    cell = rows_of(table)[METHOD_A].cells["mean", "dice"]
    assert cell.spread.mean == pytest.approx(0.73)
    assert cell.spread.over_seeds == pytest.approx(0.02 / math.sqrt(2))
    assert cell.comparison.difference == pytest.approx(0.025)
    assert (cell.comparison.cases, cell.comparison.evaluations) == (4, 6)
    assert rows_of(table)[METHOD_A].time_ratio == pytest.approx(1)
    assert rows_of(table)[METHOD_A].seconds_per_step == pytest.approx(1.6 / 3)
    (note,) = (n for n in table.notes if "compared on" in n)
    assert note.startswith(
        f"{METHOD_A}: compared on 6 evaluations (case, fold, seed) that the control has too, of its 6"
    )
    assert "the control's 8" in note
    assert not any("compared on" in n for n in tables["n6", "validation"].notes)


def test_few_cases_are_said_to_be_few(tables):
    notes = " ".join(tables["n6", "validation"].notes)
    assert "With 4 pairs Wilcoxon's test cannot give a p below 0.125" in notes
    assert "treat every case as a subject of its own, since there are none" in notes
    assert "One training" not in notes and "One seed" not in notes


def test_subjects_are_drawn_and_tested_as_one(tmp_path):
    subjects = {"case_0": "s", "case_1": "s", "case_2": "t", "case_3": "u"}
    table = tables_of(synthetic.build(tmp_path, **N6), subjects=(subjects, ""))["n6", "validation"]
    comparison = rows_of(table)[METHOD_A].cells["mean", "dice"].comparison
    assert comparison.units == 3 and comparison.cases == 4
    assert comparison.difference == pytest.approx(0.025)
    assert comparison.interval == pytest.approx(bootstrap_interval([0.01, 0.02, 0.03, 0.04], [*"sstu"]))
    assert comparison.p == pytest.approx(0.25)  # 3 differences of one sign
    assert "Intervals and tests are over subjects, not cases: 3 subjects, 4 cases." in table.notes


def test_one_case_one_fold_one_seed(tmp_path):
    folder = synthetic.build(tmp_path, folds={0: ("case_0",)}, seeds=(0,), **N6)
    table = tables_of(folder)["n6", "validation"]
    cell = rows_of(table)[METHOD_A].cells["mean", "dice"]
    assert cell.spread.mean == pytest.approx(0.46)
    assert (cell.spread.over_cases, cell.spread.over_folds, cell.spread.over_seeds) == (None, None, None)
    assert cell.comparison.difference == pytest.approx(0.01)
    assert (cell.comparison.interval, cell.comparison.p, cell.p) == (None, None, None)
    assert any(note.startswith("One training per trainer (one fold, one seed)") for note in table.notes)


def test_no_difference_at_all(tmp_path):
    folder = synthetic.build(tmp_path, dice=lambda trainer, *rest: synthetic.known_dice(CONTROL, *rest), **N6)
    cell = rows_of(tables_of(folder)["n6", "validation"])[METHOD_A].cells["mean", "dice"]
    assert cell.comparison.difference == 0
    assert cell.comparison.interval == (0, 0)
    assert cell.p == 1


def test_without_the_control_nothing_is_compared(tmp_path):
    table = tables_of(synthetic.build(tmp_path, trainers=(METHOD_A, METHOD_B), **N6))["n6", "validation"]
    assert all(cell.comparison is None for row in table.rows for cell in row.cells.values())
    assert all(row.time_ratio is None and not row.control for row in table.rows)
    assert any(note.startswith(f"There is no finished training of the control {CONTROL}") for note in table.notes)


def test_another_control(tmp_path):
    table = tables_of(synthetic.build(tmp_path, **N6), control=METHOD_B)["n6", "validation"]
    assert table.rows[0].trainer == METHOD_B and table.rows[0].control
    assert rows_of(table)[CONTROL].cells["mean", "dice"].comparison.difference == pytest.approx(0.1)


def rewrite(folder, trainer, fold, rows):
    for seed in (0, 1):
        name = f"{DATASET}__3d_fullres__{trainer}__n6__fold{fold}__seed{seed}"
        write_evaluation(folder / "jobs" / name, rows)


def test_empty_masks_and_a_class_without_value(tmp_path):
    """Fold 0: the control misses the box of case_0; case_1 has no box for anybody, so that its mean is the ball's."""
    folder = synthetic.build(tmp_path, **N6)
    absent = row("case_1", "box", None, "true_negative")
    missed = row("case_0", "box", 0.0, "missed")
    false = row("case_1", "box", 0.0, "false_positive")
    rewrite(folder, CONTROL, 0, [row("case_0", "ball", 0.5), missed, row("case_1", "ball", 0.6), absent])
    rewrite(
        folder, METHOD_A, 0, [row("case_0", "ball", 0.5), row("case_0", "box", 0.7), row("case_1", "ball", 0.6), false]
    )
    rows = rows_of(tables_of(folder)["n6", "validation"])
    control, method = rows[CONTROL], rows[METHOD_A]
    # fold 1 as ever: ball 0.61, 0.71 and box 0.71, 0.81 with the mean of both seeds
    assert control.cells["mean", "dice"].spread.mean == pytest.approx((0.25 + 0.6 + 0.66 + 0.76) / 4)
    assert control.cells["mean", "dice"].ok_mean == pytest.approx((0.5 + 0.6 + 0.66 + 0.76) / 4)
    assert control.cells["box", "dice"].spread.mean == pytest.approx((0 + 0.71 + 0.81) / 3)
    assert control.cells["box", "dice"].spread.cases == 3
    assert (control.missed, control.false_positives["mean"]) == ({"mean": 2, "ball": 0, "box": 2}, 0)
    assert (method.missed["mean"], method.false_positives["box"], method.evaluated["box"]) == (0, 2, 8)
    # the box of case_1 has no value for the control, so that this class is compared on three cases
    assert method.cells["box", "dice"].comparison.cases == 3
    assert method.cells["box", "dice"].comparison.difference == pytest.approx((0.7 + 0.03 + 0.04) / 3)
    # the foreground is compared on all four: 0.6 - 0.25, 0.3 - 0.6, 0.03, 0.04
    assert method.cells["mean", "dice"].comparison.difference == pytest.approx((0.35 - 0.3 + 0.03 + 0.04) / 4)


def test_a_class_that_one_fold_does_not_have(tmp_path):
    folder = synthetic.build(tmp_path, **N6)
    for trainer in synthetic.TRAINERS:
        rewrite(folder, trainer, 0, [row(c, "ball", 0.5) for c in ("case_0", "case_1")])
    cell = rows_of(tables_of(folder)["n6", "validation"])[CONTROL].cells["box", "dice"]
    assert cell.spread.mean == pytest.approx(0.76) and cell.spread.cases == 2
    assert cell.spread.over_folds is None


def test_test_cases_are_a_table_of_their_own_and_count_once(tmp_path):
    """Both folds predict the same two cases; fold 1 is 0.2 better. The value of a case is the mean over the folds."""
    folder = synthetic.build(tmp_path, trainers=(CONTROL,), **N6)
    for job in (folder / "jobs").iterdir():
        better = 0.2 * ("fold1" in job.name)
        write_evaluation(job / "test", [row("t0", "ball", 0.3 + better), row("t1", "ball", 0.5 + better)])
    tables = tables_of(folder)
    assert set(tables) == {("n6", "validation"), ("n6", "test")}
    spread = tables["n6", "test"].rows[0].cells["mean", "dice"].spread
    assert (spread.cases, spread.mean) == (2, pytest.approx(0.5))
    assert spread.over_cases == pytest.approx(0.2 / math.sqrt(2))
    assert spread.over_folds == pytest.approx(0.2 / math.sqrt(2))


def test_unmatched_trainings_are_named(tmp_path):
    folder = synthetic.build(tmp_path, failed=())
    for path in (folder / "jobs").glob(f"*{METHOD_A}__n6__*/record.json"):
        record = json.loads(path.read_text())
        record |= {"steps": 200, "device": "cuda: X"}
        record["settings"]["training"]["num_epochs"] = 4
        path.write_text(json.dumps(record))
    tables = tables_of(folder)
    notes = " ".join(tables["n6", "validation"].notes)
    assert 'WARNING: the trainings differ in training settings ({"num_epochs": 2}; {"num_epochs": 4}): ' in notes
    assert "number of steps (100; 200)" in notes
    assert "different devices (cpu, cuda: X)" in notes
    assert "differ" not in " ".join(tables["n12", "validation"].notes)


def test_csv_has_every_number(tables):
    frame = to_frame(list(tables.values()))
    assert list(frame.columns) == COLUMNS
    assert len(frame) == 2 * 3 * 3 * 2  # splits, trainers, foreground and classes, metrics
    chosen = frame[(frame["split"] == "n6") & (frame["trainer"] == METHOD_A) & (frame["class"] == "mean")]
    dice, hd95 = (chosen[chosen["metric"] == metric].iloc[0] for metric in METRICS)
    assert (dice["difference"], dice["p"], dice["p_holm"]) == pytest.approx((0.025, 0.125, 0.25))
    assert (hd95["unit"], hd95["mean"]) == ("mm", pytest.approx(3.65))
    assert pd.isna(frame[frame["control"]]["difference"]).all()
