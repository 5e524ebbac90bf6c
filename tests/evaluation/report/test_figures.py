from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from nnunet_ssl.evaluation.report import forest_figure, overlay_figure
from nnunet_ssl.evaluation.report.class_figure import case_values
from nnunet_ssl.evaluation.report.drawing import COLORS, CONTROL_COLOR, legend, line_handles, new_figure, styles
from nnunet_ssl.evaluation.report.example_cases import choose_cases
from nnunet_ssl.evaluation.report.figures import make_figures
from nnunet_ssl.evaluation.report.load import load_benchmark
from nnunet_ssl.evaluation.report.tables import make_tables
from nnunet_ssl.evaluation.report.training_logs import read_log
from nnunet_ssl.evaluation.report.volumes import read_volumes
from tests.evaluation.report import synthetic
from tests.evaluation.report.synthetic import CONTROL, METHOD_A, METHOD_B


@pytest.fixture(scope="module")
def benchmark(pictured):
    return load_benchmark(str(pictured))


def job_of(benchmark, trainer, fold="0", seed="0"):
    return next(j for j in benchmark.runs if (j.trainer, j.fold, j.seed, j.split) == (trainer, fold, seed, "n6"))


def color_share(png: bytes, color: str) -> float:
    """Share of the pixels that have a colour, up to the smoothing of edges."""
    pixels = imread(io.BytesIO(png))[..., :3]
    wanted = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return float((np.abs(pixels - wanted).max(axis=2) < 0.02).mean())


def test_every_figure_shows_every_trainer_in_its_color(report):
    looks = styles([METHOD_A, METHOD_B, CONTROL], CONTROL)
    figures = {path.stem.split("validation_")[1]: path.read_bytes() for path in (report / "figures").iterdir()}
    differences = {"n6_differences", "n12_differences"}
    cases = {"case_case_2", "case_case_0"}
    assert set(figures) == {"labels", "classes_dice", "classes_hd95", "curves"} | cases | differences
    for kind, png in figures.items():
        for style in looks.values():
            assert color_share(png, style.color) > 2e-4, (kind, style.label)


def test_differences_of_all_trainers_the_best_first(benchmark):
    looks = styles([METHOD_A, METHOD_B, CONTROL], CONTROL)
    subjects = {synthetic.DATASET: {}}
    for metric, signs in {"dice": (1, -1), "hd95": (-1, 1)}.items():
        tables = make_tables(benchmark, (metric,), CONTROL, subjects)
        scale = 100 if metric == "dice" else 10
        for table in tables:
            found = forest_figure.differences(table)
            assert list(found["trainer"]) == [METHOD_A, METHOD_B]
            assert list(found["difference"]) == pytest.approx([signs[0] * scale * 0.025, signs[1] * scale * 0.1])
            assert (found["difference_low"] <= found["difference"]).all()
            assert (found["difference"] <= found["difference_high"]).all()
        assert [table.split for table, _ in forest_figure.draw(tables, looks)] == ["n6", "n12"]
    alone = make_tables(benchmark, ("dice",), "nnUNetTrainerNobody", subjects)
    assert forest_figure.draw(alone, looks) == []


def test_pictures_of_many_trainers_go_on_below(benchmark, monkeypatch):
    looks = styles([METHOD_A, METHOD_B, CONTROL], CONTROL)
    volumes = read_volumes(job_of(benchmark, CONTROL), "validation", "case_0")
    panels = {name: overlay_figure.Panel(volumes, 0.5) for name in looks}

    def size(columns: int) -> tuple[int, int]:
        monkeypatch.setattr(overlay_figure, "COLUMNS", columns)
        return imread(io.BytesIO(overlay_figure.draw("case_0", [("n6", panels)], ["1", "2"], looks))).shape[:2]

    (high, narrow), (low, wide) = size(2), size(7)
    assert high > 1.5 * low and narrow < 0.6 * wide


def test_colors_belong_to_trainers():
    looks = styles(["a", "b", CONTROL], CONTROL)
    assert looks[CONTROL].color == CONTROL_COLOR and looks[CONTROL].width > looks["a"].width
    assert (looks["a"].color, looks["b"].color) == COLORS[:2]
    many = styles([f"t{i:02d}" for i in range(12)], CONTROL)
    assert len({(s.color, s.marker) for s in many.values()}) == 12


def test_learning_curves_are_those_of_the_training(benchmark):
    log, why = read_log(job_of(benchmark, METHOD_A))
    assert why == ""
    assert list(log["ema_fg_dice"]) == pytest.approx([0.2, 0.4, 0.5])
    assert list(log["val_losses"]) == pytest.approx([0.1, -0.2, -0.5])
    assert list(log["foreground_ratio"][:2]) == pytest.approx([0.5, 1.0])
    assert np.isnan(log["foreground_ratio"][2])  # no labelled foreground in that epoch
    assert "agreement" not in read_log(job_of(benchmark, CONTROL))[0]


def test_a_training_without_checkpoint(tmp_path):
    benchmark = load_benchmark(str(synthetic.build(tmp_path, splits={"n6": (6, 10)})))
    log, why = read_log(job_of(benchmark, METHOD_A))
    assert log.empty and why == "there is no checkpoint_final.pth in its results folder"
    job_of(benchmark, METHOD_A).results_folder.mkdir(parents=True)
    (job_of(benchmark, METHOD_A).results_folder / "checkpoint_final.pth").write_bytes(b"half")
    assert "not readable" in read_log(job_of(benchmark, METHOD_A))[1]


def test_what_cannot_be_drawn_is_named(tmp_path):
    benchmark = load_benchmark(str(synthetic.build(tmp_path, splits={"n6": (6, 10)}, trainers=(CONTROL,))))
    tables = make_tables(benchmark, ("dice",), CONTROL, {synthetic.DATASET: {}})
    figures, notes = make_figures(benchmark, tables, CONTROL, styles([CONTROL], CONTROL), ["case_0"])
    assert [Path(f.file).stem.split("validation_")[1] for f in figures] == ["labels", "classes_dice"]
    assert sum(note.startswith("No learning curve of ") for note in notes) == 4
    (picture,) = (note for note in notes if note.startswith("No picture of case_0"))
    assert f"the image case_0_0000.nii.gz was not found in {tmp_path}" in picture


def test_a_legend_is_as_wide_as_its_figure_at_most():
    for width, columns in ((3.4, 1), (6.8, 3), (20.0, 4)):
        figure = new_figure(width, 2)
        legend(figure, line_handles([*styles([f"nnUNetTrainer{i}" for i in range(4)], CONTROL).values()]))
        assert figure.legends[0]._ncols == columns


def test_values_of_the_boxes(benchmark):
    values = benchmark.values[benchmark.values["split"] == "n6"]
    data = case_values(values, "dice").set_index(["trainer", "class", "case"])["dice"]
    assert len(data) == 3 * 2 * 4
    assert data[CONTROL, "ball", "case_0"] == pytest.approx(41)  # percent, mean of both seeds


def test_volumes(benchmark, monkeypatch):
    volumes = read_volumes(job_of(benchmark, METHOD_A), "validation", "case_0")
    assert volumes.spacing == (4.0, 1.5, 1.0)
    np.testing.assert_array_equal(volumes.reference, synthetic.reference("case_0"))
    shift = synthetic.TRAINERS.index(METHOD_A)
    np.testing.assert_array_equal(volumes.prediction, np.roll(volumes.reference, shift, axis=2))
    assert volumes.image.shape == synthetic.SHAPE


def test_images_are_found_through_nnunet_raw(benchmark, pictured, monkeypatch, tmp_path):
    job = job_of(benchmark, CONTROL)
    labels = tmp_path / "elsewhere"
    labels.symlink_to(Path(job.evaluations["validation"]["reference"]))
    job.evaluations["validation"]["reference"], old = str(labels), job.evaluations["validation"]["reference"]
    try:
        with pytest.raises(FileNotFoundError, match="nnUNet_raw is not set"):
            read_volumes(job, "validation", "case_0")
        monkeypatch.setenv("nnUNet_raw", str(pictured.parent / "raw"))
        assert read_volumes(job, "validation", "case_0").image.shape == synthetic.SHAPE
    finally:
        job.evaluations["validation"]["reference"] = old


def test_slice_and_labels():
    reference = synthetic.reference("case_3")
    assert overlay_figure.best_slice(reference, ["1", "2"]) == 3
    assert overlay_figure.best_slice(reference, ["2"]) == 2  # the first of equal ones
    assert overlay_figure.best_slice(np.zeros((7, 2, 2)), ["1"]) == 3
    assert overlay_figure.label_values("1+2") == [1, 2]


def frame(dice: dict[str, float], trainer: str = CONTROL) -> pd.DataFrame:
    what = {"trainer": trainer, "split": "n6", "fold": "0", "seed": "0", "class": "a"}
    return pd.DataFrame([{**what, "case": case, "dice": value} for case, value in dice.items()])


def test_cases_are_chosen_by_the_control():
    control = frame({"c1": 0.9, "c2": 0.5, "c3": 0.7})
    values = pd.concat([control, frame({"c1": 0.1, "c2": 0.9, "c3": 0.2}, METHOD_A)])
    assert choose_cases(values, CONTROL, None) == {"c3": "the control's median Dice", "c2": "the control's worst Dice"}
    assert choose_cases(values, CONTROL, ["c1", "unknown"]) == {"c1": "asked for"}
    both = choose_cases(values, "absent", None)  # means 0.5, 0.7, 0.45
    assert both == {"c1": "all trainers' median Dice", "c3": "all trainers' worst Dice"}


def test_a_single_case_is_shown_once():
    assert list(choose_cases(frame({"c1": 0.9}), CONTROL, None)) == ["c1"]
    assert choose_cases(frame({"c1": float("nan")}), CONTROL, None) == {}
