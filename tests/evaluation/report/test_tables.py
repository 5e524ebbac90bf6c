"""The numbers of the tables against values computed by hand, see the head of synthetic.py."""

from __future__ import annotations

import json
import math
import warnings
from types import SimpleNamespace

import pandas as pd
import pytest

from nnunet_ssl.evaluation.report.load import load_benchmark
from nnunet_ssl.evaluation.report.notes import notes_of
from nnunet_ssl.evaluation.report.statistics import bootstrap_interval
from nnunet_ssl.evaluation.report.subjects import Subjects
from nnunet_ssl.evaluation.report.tables import NUMBERS, make_tables
from tests.evaluation.report import synthetic
from tests.evaluation.report.synthetic import CONTROL, DATASET, METHOD_A, METHOD_B, row, write_evaluation

NO_SUBJECTS = Subjects({}, "there are none")
METRICS = ("dice", "hd95")
N6 = {"splits": {"n6": (6, 10)}}


def tables_of(folder, control=CONTROL, subjects=NO_SUBJECTS, metrics=("dice",)):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tables = make_tables(load_benchmark(str(folder)), metrics, control, {DATASET: subjects.groups})
    return {(table.split, table.place.scope): table for table in tables}


def numbers(table, trainer, name="mean", metric="dice"):
    """A row of the numbers, None where there is no value."""
    row = table.of_class(name)[trainer][metric]
    return SimpleNamespace(**{key: None if pd.isna(value) else value for key, value in row.items()})


def interval(found):
    return found.difference_low, found.difference_high


def notes_below(table, control=CONTROL, subjects=NO_SUBJECTS):
    return notes_of(table, control, subjects)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return tables_of(synthetic.build(tmp_path_factory.mktemp("benchmark")), metrics=METRICS)


def test_one_table_per_split_the_smallest_first_and_the_control_on_top(tables):
    assert list(tables) == [("n6", "validation"), ("n12", "validation")]
    table = tables["n6", "validation"]
    assert table.trainers == [CONTROL, METHOD_A, METHOD_B]
    assert (table.labeled, table.withheld, table.distance_unit) == ((6, 6), (10, 10), "mm")
    assert table.classes == ("ball", "box")


def test_mean_and_spread_of_the_control(tables):
    """Per case, over classes and seeds: 0.46, 0.56, 0.66, 0.76. Folds 0.51, 0.71. Seeds 0.60, 0.62."""
    cell = numbers(tables["n6", "validation"], CONTROL)
    assert cell.mean == pytest.approx(0.61)
    assert cell.std_cases == pytest.approx(math.sqrt(2 * (0.15**2 + 0.05**2) / 3))
    assert cell.std_folds == pytest.approx(0.2 / math.sqrt(2))
    assert cell.std_seeds == pytest.approx(0.02 / math.sqrt(2))
    assert cell.cases == 4
    assert cell.mean_ok == pytest.approx(0.61)
    assert (cell.mean_low, cell.mean_high) == pytest.approx(bootstrap_interval([0.46, 0.56, 0.66, 0.76]))
    assert cell.difference is None and cell.p_holm is None


def test_difference_to_the_control(tables):
    better, worse = (numbers(tables["n6", "validation"], name) for name in (METHOD_A, METHOD_B))
    assert better.difference == pytest.approx(0.025)
    assert interval(better) == pytest.approx(bootstrap_interval([0.01, 0.02, 0.03, 0.04]))
    assert worse.difference == pytest.approx(-0.1)
    assert interval(worse) == pytest.approx((-0.1, -0.1))
    for cell in (better, worse):
        assert cell.p == pytest.approx(0.125)  # 4 differences of one sign
        assert cell.p_holm == pytest.approx(0.25)  # two methods
        assert (cell.compared_cases, cell.compared_units, cell.compared_evaluations) == (4, 4, 8)


def test_distances_have_the_opposite_sign(tables):
    cell = numbers(tables["n6", "validation"], METHOD_A, "mean", "hd95")
    assert cell.mean == pytest.approx(10 * (1 - 0.635))
    assert cell.difference == pytest.approx(-0.25)


def test_classes_by_themselves(tables):
    table = tables["n6", "validation"]
    assert numbers(table, CONTROL, "ball").mean == pytest.approx(0.56)
    assert numbers(table, CONTROL, "box").mean == pytest.approx(0.66)
    assert numbers(table, METHOD_A, "box").difference == pytest.approx(0.025)
    assert numbers(table, METHOD_A, "box").p_holm is None  # classes are described, not tested


def test_costs(tables):
    rows = {name: numbers(tables["n6", "validation"], name) for name in synthetic.TRAINERS}
    assert rows[CONTROL].seconds_per_step == pytest.approx(0.55)
    assert [rows[t].time_ratio for t in (CONTROL, METHOD_A, METHOD_B)] == pytest.approx([1, 1, 3])
    assert rows[METHOD_B].peak_memory_mb == 2560 and rows[METHOD_B].peak_gpu_memory_mb is None
    assert [row.trainings for row in rows.values()] == [4, 4, 4]


def test_a_failed_job_is_named_and_left_out_on_both_sides(tables):
    """A lacks seed 1 of fold 1. Its cases: 0.57, 0.68, 0.78, 0.89; only fold 0 has both seeds: 0.615 and 0.635."""
    table = tables["n12", "validation"]
    (reason,) = table.incomplete
    assert reason == f"{synthetic.FAILED}: failed, in stage train: RuntimeError: out of memory & time_100%"
    cell = numbers(table, METHOD_A)
    assert cell.mean == pytest.approx(0.73)
    assert cell.std_seeds == pytest.approx(0.02 / math.sqrt(2))
    assert cell.difference == pytest.approx(0.025)
    assert (cell.compared_cases, cell.compared_evaluations) == (4, 6)
    assert numbers(table, METHOD_A).time_ratio == pytest.approx(1)
    assert numbers(table, METHOD_A).seconds_per_step == pytest.approx(1.6 / 3)
    (note,) = (n for n in notes_below(table) if "compared on" in n)
    assert note.startswith(
        f"{METHOD_A}: compared on the 6 evaluations (case, fold, seed) that the control has too, out of its own 6"
    )
    assert "the control's 8" in note
    assert not any("compared on" in n for n in notes_below(tables["n6", "validation"]))


def test_few_cases_are_said_to_be_few(tables):
    notes = " ".join(notes_below(tables["n6", "validation"]))
    assert "With 4 pairs, Wilcoxon's test cannot give a p below 0.125" in notes
    assert "treat every case as a subject of its own, because there are none" in notes
    assert "one training run" not in notes and "one seed" not in notes


def test_subjects_are_drawn_and_tested_as_one(tmp_path):
    subjects = Subjects({"case_0": "s", "case_1": "s", "case_2": "t", "case_3": "u"})
    table = tables_of(synthetic.build(tmp_path, **N6), subjects=subjects)["n6", "validation"]
    comparison = numbers(table, METHOD_A)
    assert comparison.compared_units == 3 and comparison.compared_cases == 4
    assert comparison.difference == pytest.approx(0.025)
    assert interval(comparison) == pytest.approx(bootstrap_interval([0.01, 0.02, 0.03, 0.04], [*"sstu"]))
    assert comparison.p == pytest.approx(0.25)  # 3 differences of one sign
    assert "Intervals and tests are over subjects, not cases: 3 subjects, 4 cases." in notes_below(
        table, subjects=subjects
    )


def test_one_case_one_fold_one_seed(tmp_path):
    folder = synthetic.build(tmp_path, folds={0: ("case_0",)}, seeds=(0,), **N6)
    table = tables_of(folder)["n6", "validation"]
    cell = numbers(table, METHOD_A)
    assert cell.mean == pytest.approx(0.46)
    assert (cell.std_cases, cell.std_folds, cell.std_seeds) == (None, None, None)
    assert cell.difference == pytest.approx(0.01)
    assert (*interval(cell), cell.p, cell.p_holm) == (None, None, None, None)
    assert any(
        note.startswith("There is one training run per trainer (one fold, one seed)") for note in notes_below(table)
    )


def test_without_a_common_evaluation_nothing_is_compared(tmp_path):
    folder = synthetic.build(tmp_path, trainers=(CONTROL, METHOD_A), **N6)
    for fold in (0, 1):
        rewrite(folder, METHOD_A, fold, [row(f"other_{fold}", "ball", 0.5)])
    table = tables_of(folder)["n6", "validation"]
    assert (numbers(table, METHOD_A).mean, numbers(table, METHOD_A).difference) == (0.5, None)
    notes = " ".join(notes_below(table))
    assert "compared on the 0 evaluations" in notes and "Wilcoxon" not in notes


def test_no_difference_at_all(tmp_path):
    folder = synthetic.build(tmp_path, dice=lambda trainer, *rest: synthetic.known_dice(CONTROL, *rest), **N6)
    cell = numbers(tables_of(folder)["n6", "validation"], METHOD_A)
    assert cell.difference == 0
    assert interval(cell) == (0, 0)
    assert cell.p_holm == 1


def test_without_the_control_nothing_is_compared(tmp_path):
    table = tables_of(synthetic.build(tmp_path, trainers=(METHOD_A, METHOD_B), **N6))["n6", "validation"]
    assert table.numbers[["difference", "p", "p_holm", "compared_cases", "time_ratio"]].isna().all(axis=None)
    assert len(table.numbers) == 6 and not table.has_control
    assert any(
        note.startswith(f"No training run of the control, {CONTROL}, has finished") for note in notes_below(table)
    )


def test_another_control(tmp_path):
    table = tables_of(synthetic.build(tmp_path, **N6), control=METHOD_B)["n6", "validation"]
    assert table.trainers[0] == METHOD_B and numbers(table, METHOD_B).control
    assert numbers(table, CONTROL).difference == pytest.approx(0.1)


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
    table = tables_of(folder)["n6", "validation"]
    # fold 1 as ever: ball 0.61, 0.71 and box 0.71, 0.81 with the mean of both seeds
    control, of_box = numbers(table, CONTROL), numbers(table, CONTROL, "box")
    assert control.mean == pytest.approx((0.25 + 0.6 + 0.66 + 0.76) / 4)
    assert control.mean_ok == pytest.approx((0.5 + 0.6 + 0.66 + 0.76) / 4)
    assert of_box.mean == pytest.approx((0 + 0.71 + 0.81) / 3)
    assert of_box.cases == 3
    missed = [numbers(table, CONTROL, name).missed for name in ("mean", "ball", "box")]
    assert (missed, control.false_positives) == ([2, 0, 2], 0)
    method, of_box = numbers(table, METHOD_A), numbers(table, METHOD_A, "box")
    assert (method.missed, of_box.false_positives, of_box.evaluations) == (0, 2, 8)
    # the box of case_1 has no value for the control, so that this class is compared on three cases
    assert of_box.compared_cases == 3
    assert of_box.difference == pytest.approx((0.7 + 0.03 + 0.04) / 3)
    # the foreground is compared on all four: 0.6 - 0.25, 0.3 - 0.6, 0.03, 0.04
    assert method.difference == pytest.approx((0.35 - 0.3 + 0.03 + 0.04) / 4)


def test_a_class_that_one_fold_does_not_have(tmp_path):
    folder = synthetic.build(tmp_path, **N6)
    for trainer in synthetic.TRAINERS:
        rewrite(folder, trainer, 0, [row(c, "ball", 0.5) for c in ("case_0", "case_1")])
    cell = numbers(tables_of(folder)["n6", "validation"], CONTROL, "box", "dice")
    assert cell.mean == pytest.approx(0.76) and cell.cases == 2
    assert cell.std_folds is None


def test_test_cases_are_a_table_of_their_own_and_count_once(tmp_path):
    """Both folds predict the same two cases; fold 1 is 0.2 better. The value of a case is the mean over the folds."""
    folder = synthetic.build(tmp_path, trainers=(CONTROL,), **N6)
    for job in (folder / "jobs").iterdir():
        better = 0.2 * ("fold1" in job.name)
        write_evaluation(job / "test", [row("t0", "ball", 0.3 + better), row("t1", "ball", 0.5 + better)])
    tables = tables_of(folder)
    assert set(tables) == {("n6", "validation"), ("n6", "test")}
    spread = numbers(tables["n6", "test"], CONTROL)
    assert (spread.cases, spread.mean) == (2, pytest.approx(0.5))
    assert spread.std_cases == pytest.approx(0.2 / math.sqrt(2))
    assert spread.std_folds == pytest.approx(0.2 / math.sqrt(2))


def test_unmatched_trainings_are_named(tmp_path):
    folder = synthetic.build(tmp_path, failed=())
    for path in (folder / "jobs").glob(f"*{METHOD_A}__n6__*/record.json"):
        record = json.loads(path.read_text())
        record |= {"steps": 200, "device": "cuda: X"}
        record["settings"]["training"]["num_epochs"] = 4
        path.write_text(json.dumps(record))
    tables = tables_of(folder)
    notes = " ".join(notes_below(tables["n6", "validation"]))
    assert 'WARNING: the training runs differ in training settings ({"num_epochs": 2}; {"num_epochs": 4}), so' in notes
    assert "number of steps (100; 200)" in notes
    assert "devices of the training runs differ (cpu, cuda: X)" in notes
    assert "differ" not in " ".join(notes_below(tables["n12", "validation"]))


def test_every_number_is_there(tables):
    frame = pd.concat([table.numbers for table in tables.values()])
    assert list(frame.columns) == NUMBERS
    assert len(frame) == 2 * 3 * 3 * 2  # splits, trainers, foreground and classes, metrics
    chosen = frame[(frame["split"] == "n6") & (frame["trainer"] == METHOD_A) & (frame["class"] == "mean")]
    dice, hd95 = (chosen[chosen["metric"] == metric].iloc[0] for metric in METRICS)
    assert (dice["difference"], dice["p"], dice["p_holm"]) == pytest.approx((0.025, 0.125, 0.25))
    assert (hd95["unit"], hd95["mean"]) == ("mm", pytest.approx(3.65))
    assert pd.isna(frame[frame["control"]]["difference"]).all()
