"""The selection of a round from label files and probabilities."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.evaluation.report.quantities import MISSING
from nnunet_ssl.selftrain.report.tables import coverage_text, read_selection
from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.selection import choose as module
from nnunet_ssl.selftrain.selection.choose import choose
from nnunet_ssl.selftrain.settings import SelfTraining, write_settings
from tests.integration.commands import segmentation
from tests.running import write_split
from tests.tiny import DATASET, Tiny, case_arrays, write_image

SHAPE = Tiny().shape
TRUTH = {f"tiny_00{i}": case_arrays(Tiny(), i)[1] for i in (2, 3, 4)}


@pytest.fixture
def run_of(make_dataset, tmp_path: Path):
    """run_of(**settings) -> a run whose two teachers have predicted the three withheld cases.

    tiny_002: both teachers right; tiny_003: the second one misses the box; tiny_004: neither finds anything.
    """
    base = make_dataset(preprocess=False, unlabeled=0)
    write_split(base)

    def make(**values) -> Run:
        settings = SelfTraining(DATASET, "3d_fullres", split="n2", n_teachers=2, **values)
        run = Run(str(tmp_path / "out"), settings)
        (tmp_path / "out").mkdir(exist_ok=True)
        write_settings(run.output, settings, {})
        for number in (1, 2):
            for teacher in (0, 1):
                maps = {case: truth.copy() for case, truth in TRUTH.items()}
                maps["tiny_004"][:] = 0
                if teacher == 1:
                    maps["tiny_003"][maps["tiny_003"] == 2] = 0
                for case, labels in maps.items():
                    write_image(labels, Path(run.teacher_folder(number, teacher), f"{case}.nii.gz"), (1.0, 1.0, 1.0))
        return run

    return make


def table(run: Run, number: int = 1) -> pd.DataFrame:
    return pd.read_csv(Path(run.round_folder(number), "selection.csv")).set_index("case")


def test_agreement(run_of):
    run = run_of()
    choose(run, 1, 1)
    found = table(run)
    assert found["kept"].to_dict() == {"tiny_002": True, "tiny_003": False, "tiny_004": False}
    assert found.loc["tiny_003", ["score", "score_ball", "score_box"]].tolist() == [0, 1, 0]
    assert found.loc["tiny_004", "reason"] == "no teacher finds anything" and np.isnan(found.loc["tiny_004", "score"])
    assert found.loc["tiny_002", "volume_ml_box"] == pytest.approx((TRUTH["tiny_002"] == 2).sum() / 1000)
    differing = (TRUTH["tiny_003"] == 2).sum() / (TRUTH["tiny_003"] > 0).sum()
    assert found.loc["tiny_003", "differing"] == pytest.approx(differing)
    content = json.loads(Path(run.selection_file(1)).read_text())
    assert [entry["kept"] for entry in content["cases"]] == [True, False, False]
    label = segmentation(Path(run.labels_folder(1), "tiny_003.nii.gz"))
    assert np.array_equal(label, TRUTH["tiny_003"])  # one vote each: the first teacher's
    assert not [*Path(run.labels_folder(1)).glob(".*")]


def test_keep_empty_and_volumes_and_true_dice(run_of):
    run = run_of(keep_empty=True, monitor_withheld_labels=True, select="none")
    choose(run, 1, 1)
    found = table(run)
    assert found["kept"].all() and found.loc["tiny_004", "reason"] == "no teacher finds anything, kept as asked for"
    assert found.loc["tiny_003", ["true_dice_ball", "true_dice_box"]].tolist() == [1, 1]
    assert found.loc["tiny_004", "true_dice_ball"] == 0
    assert found["unusual_volumes"].isna().all()


def probabilities(run: Run, number: int = 1) -> None:
    """Mean probabilities of the ensemble: the truth with 0.95, but for the box of tiny_003, which has 0.6."""
    for case, truth in TRUTH.items():
        values = np.full((3, *SHAPE), 0.025, np.float32)
        labels = np.zeros_like(truth) if case == "tiny_004" else truth
        np.put_along_axis(values, labels[None].astype(int), 0.95, axis=0)
        if case == "tiny_003":
            values[:, labels == 2] = np.array([0.3, 0.1, 0.6])[:, None]
        folder = Path(run.ensemble_folder(number))
        write_image(labels, folder / f"{case}.nii.gz", (1.0, 1.0, 1.0))
        np.savez_compressed(folder / f"{case}.npz", probabilities=values)


def test_confidence_and_ignored_voxels(run_of):
    run = run_of(select="confidence", threshold=0.8, voxels="ignore", voxel_confidence=0.8)
    probabilities(run)
    choose(run, 1, 1)
    found = table(run)
    assert found.loc["tiny_002", ["score_ball", "score_box"]].tolist() == [1, 1]
    assert found.loc["tiny_003", ["score_ball", "score_box", "score"]].tolist() == [1, 0, 0]
    box = TRUTH["tiny_003"] == 2
    label = segmentation(Path(run.labels_folder(1), "tiny_003.nii.gz"))
    assert np.array_equal(label == 3, box) and np.array_equal(label[~box], TRUTH["tiny_003"][~box])
    assert found.loc["tiny_003", "ignored"] == pytest.approx(box.mean())
    assert found.loc["tiny_002", "ignored"] == 0


@pytest.mark.parametrize("select", ["confidence", "entropy"])
def test_a_class_that_a_teacher_finds_and_the_mean_does_not(run_of, select: str):
    """Nothing to be sure of, but a reason for doubt; a class that nobody finds is none."""
    run = run_of(select=select, threshold=0.5)
    probabilities(run)
    for case in ("tiny_002", "tiny_003"):
        without_box = np.where(TRUTH[case] == 2, 0, TRUTH[case])
        write_image(without_box, Path(run.ensemble_folder(1), f"{case}.nii.gz"), (1.0, 1.0, 1.0))
    for teacher in (0, 1):
        write_image(without_box, Path(run.teacher_folder(1, teacher), "tiny_003.nii.gz"), (1.0, 1.0, 1.0))
    choose(run, 1, 1)
    found = table(run)
    assert found.loc["tiny_002", ["score_box", "score", "kept"]].tolist() == [0, 0, False]
    assert np.isnan(found.loc["tiny_003", "score_box"]) and found.loc["tiny_003", "kept"]
    written = read_selection(run, 1)
    assert written is not None
    (_, box) = coverage_text(run, written.assign(score_box=np.nan)).rows  # as where nobody finds it anywhere
    assert [cell.main for cell in box[:4]] == ["box", "0", "0", MISSING]


def test_entropy(run_of):
    run = run_of(select="entropy", threshold=0.9)
    probabilities(run)
    with pytest.raises(SemiSupervisedError, match="0 of 3 cases are kept, fewer than --min-cases 1"):
        choose(run, 1, 1)
    sure = 1 + (0.95 * np.log(0.95) + 2 * 0.025 * np.log(0.025)) / np.log(3)
    unsure = 1 + (0.3 * np.log(0.3) + 0.1 * np.log(0.1) + 0.6 * np.log(0.6)) / np.log(3)
    found = table(run)  # which is there although nothing could be kept
    assert found.loc["tiny_003", "score_ball"] == pytest.approx(sure, abs=1e-6)
    assert found.loc["tiny_003", "score"] == pytest.approx(unsure, abs=1e-6)
    assert not Path(run.selection_file(1)).exists()


def test_stability_compares_with_the_round_before(run_of):
    run = run_of(select="stability", threshold=0.9)
    choose(run, 1, 1)
    assert table(run)["reason"].tolist()[:2] == ["first round: nothing to compare with"] * 2
    other = TRUTH["tiny_002"].copy()
    other[other == 2] = 0
    write_image(other, Path(run.labels_folder(1), "tiny_002.nii.gz"), (1.0, 1.0, 1.0))
    choose(run, 2, 1)
    found = table(run, 2)
    assert found.loc["tiny_002", ["score_ball", "score_box", "score"]].tolist() == [1, 0, 0]
    assert found.loc["tiny_003", "score"] == 1 and found["kept"].to_dict()["tiny_003"]
    assert not found["kept"].to_dict()["tiny_002"]


def test_regions_are_judged_as_regions(make_dataset, tmp_path):
    """Teachers that call parts of the whole by other names agree on the whole."""
    labels = {"background": 0, "whole": (1, 2), "core": 2}
    base = make_dataset(preprocess=False, unlabeled=0, labels=labels, regions_class_order=(1, 2))
    write_split(base)
    run = Run(str(tmp_path / "out"), SelfTraining(DATASET, "3d_fullres", split="n2", n_teachers=2))
    for teacher in (0, 1):
        for case, truth in TRUTH.items():
            renamed = np.where(truth == 2, 1, truth) if teacher else truth
            write_image(
                renamed.astype(np.uint8), Path(run.teacher_folder(1, teacher), f"{case}.nii.gz"), (1.0, 1.0, 1.0)
            )
    with pytest.raises(SemiSupervisedError):
        choose(run, 1, 1)
    found = table(run)
    assert (found["score_whole"] == 1).all() and (found["score_core"] == 0).all()
    assert [module.channel_of(run, kind) for kind in run.labels.classes] == [0, 1]


def test_the_process_that_a_step_starts(run_of, monkeypatch, capsys):
    run = run_of()
    monkeypatch.setattr(sys, "argv", ["choose", run.output, "1"])
    assert module.main() == 0 and "1 of 3 cases kept" in capsys.readouterr().out
    run = run_of(min_cases=2)
    assert module.main() == 1
    assert "1 of 3 cases are kept, fewer than --min-cases 2" in capsys.readouterr().err
