"""One case from its files: ignore label, unknown labels, damaged files, other grids."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from nnunet_ssl.evaluation.scoring.case import CaseResult, Rules, score_case
from nnunet_ssl.evaluation.scoring.labels import EvaluatedClass, Labels
from tests.evaluation.scoring.folders import volume, write

CLASSES = (EvaluatedClass("ball", (1,)), EvaluatedClass("box", (2,)))
PLAIN = Labels(CLASSES, frozenset({0, 1, 2}), None)
WITH_IGNORE = Labels(CLASSES, frozenset({0, 1, 2}), 3)


def evaluate(folder: Path, labels: Labels = PLAIN, reader: str = "SimpleITKIO", score: bool = True) -> CaseResult:
    paths = str(folder / "r.nii.gz"), str(folder / "p.nii.gz")
    return score_case("c", *paths, Rules(reader, labels, False, 1.0), score)


def test_voxels_with_the_ignore_label_are_in_no_mask(tmp_path):
    reference, prediction = np.zeros((2, 4, 8, 8), np.uint8)
    reference[:, 2:6, 2:6], prediction[:, 2:6, 2:6] = 1, 1
    prediction[:, :, 6:] = 1  # wrong, but nobody looked there
    prediction[:, 0, 0] = 2
    reference[:, :, 6:] = 3
    write(tmp_path / "r.nii.gz", reference)
    write(tmp_path / "p.nii.gz", prediction)
    rows = evaluate(tmp_path, WITH_IGNORE).rows
    assert [row["status"] for row in rows] == ["ok", "false_positive"]
    assert (rows[0]["dice"], rows[0]["hd95"], rows[0]["predicted_voxels"]) == (1, 0, 64)
    reference[:, 0, 0] = 3
    write(tmp_path / "r.nii.gz", reference)
    assert [row["status"] for row in evaluate(tmp_path, WITH_IGNORE).rows] == ["ok", "true_negative"]


def test_a_prediction_may_hold_the_ignore_label_only_where_nothing_counts(tmp_path):
    reference = volume()
    reference[0] = 3
    prediction = reference.copy()
    write(tmp_path / "r.nii.gz", reference)
    write(tmp_path / "p.nii.gz", prediction)
    assert [row["dice"] for row in evaluate(tmp_path, WITH_IGNORE).rows] == [1, 1]
    prediction[3, 4, 4:6] = 3
    write(tmp_path / "p.nii.gz", prediction)
    (problem,) = evaluate(tmp_path, WITH_IGNORE).problems
    assert problem == "c: the prediction p.nii.gz has the ignore label in 2 voxels that the reference does not ignore"


def test_unknown_labels_of_both_files_are_named(tmp_path):
    reference, prediction = volume(), volume()
    reference[0, 0, 0], prediction[0, 0, :8] = 9, np.arange(8)
    write(tmp_path / "r.nii.gz", reference)
    write(tmp_path / "p.nii.gz", prediction)
    assert evaluate(tmp_path).problems == (
        "c: the reference r.nii.gz has labels that dataset.json does not name: 9",
        "c: the prediction p.nii.gz has labels that dataset.json does not name: 3, 4, 5, 6, 7",
    )


def test_probabilities_are_no_labels(tmp_path):
    write(tmp_path / "r.nii.gz", volume())
    write(tmp_path / "p.nii.gz", volume().astype(np.float32) * 0.5)
    half = int((volume() == 1).sum())
    assert evaluate(tmp_path).problems == (
        f"c: the prediction p.nii.gz is not a label file: {half} voxels are not whole numbers",
    )


def test_labels_as_floating_point_are_fine(tmp_path):
    write(tmp_path / "r.nii.gz", volume())
    write(tmp_path / "p.nii.gz", volume().astype(np.float64))
    assert [row["dice"] for row in evaluate(tmp_path).rows] == [1, 1]


def test_truncated_and_unreadable_files(tmp_path, capfd):
    write(tmp_path / "r.nii.gz", np.random.default_rng(0).integers(0, 2, (20, 20, 20)).astype(np.uint8))
    (tmp_path / "p.nii.gz").write_bytes((tmp_path / "r.nii.gz").read_bytes()[:-200])
    (problem,) = evaluate(tmp_path).problems
    assert problem.startswith("c: the prediction p.nii.gz is truncated")
    (tmp_path / "p.nii.gz").write_bytes(b"no image at all")
    (tmp_path / "r.nii.gz").unlink()
    first, second = evaluate(tmp_path).problems
    assert first.startswith("c: the reference r.nii.gz cannot be opened")
    assert second.startswith("c: the prediction p.nii.gz cannot be read")
    assert capfd.readouterr() == ("", "")


def test_other_shapes_and_several_channels(tmp_path):
    write(tmp_path / "r.nii.gz", volume())
    write(tmp_path / "p.nii.gz", volume(shape=(6, 8, 11)))
    (problem,) = evaluate(tmp_path).problems
    assert problem == (
        "c: the prediction p.nii.gz lies on another grid: 11 x 8 x 6 voxels, the reference has 10 x 8 x 6"
    )
    image = SimpleITK.ReadImage(str(tmp_path / "r.nii.gz"))
    SimpleITK.WriteImage(SimpleITK.JoinSeries([image, image]), str(tmp_path / "p.nii.gz"))
    assert evaluate(tmp_path).problems == ("c: the prediction p.nii.gz is not a label file: it has 2 channels",)


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO", "NibabelIOWithReorient"])
@pytest.mark.parametrize(
    "axes",
    [((1, 0, 0), (0, 1, 0), (0, 0, 1)), ((0, 0, -1), (1, 0, 0), (0, 1, 0)), ((0.8, -0.6, 0), (0.6, 0.8, 0), (0, 0, 1))],
    ids=["identity", "permuted", "rotated"],
)
def test_millimetres_follow_the_header(tmp_path, reader, axes):
    """Along each axis of the file in turn, two voxels apart: twice that axis' spacing."""
    for axis, spacing in enumerate((3.0, 2.0, 0.5)):
        reference, prediction = np.zeros((2, 5, 6, 7), np.uint8)
        index = [1, 1, 1]
        reference[tuple(index)] = 1
        index[axis] += 2
        prediction[tuple(index)] = 1
        for name, array in (("r", reference), ("p", prediction)):
            write(tmp_path / f"{name}.nii.gz", array, (3.0, 2.0, 0.5), np.array(axes), (5.0, 6.0, 7.0))
        row, _ = evaluate(tmp_path, reader=reader).rows
        assert [row[name] for name in ("hd95", "asd", "assd")] == pytest.approx([2 * spacing] * 3, rel=1e-5)
        missed = evaluate_missed(tmp_path, reader)
        assert missed["hd95"] == pytest.approx(np.linalg.norm([15, 12, 3.5]), rel=1e-5)


def evaluate_missed(folder: Path, reader: str) -> dict:
    image = nibabel.load(folder / "p.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), folder / "p.nii.gz")
    return evaluate(folder, reader=reader).rows[0]


def test_a_flipped_copy_is_another_grid_unless_the_reader_turns_it_back(tmp_path):
    write(tmp_path / "r.nii.gz", volume(3), (1.0, 2.0, 3.0))
    image = nibabel.load(tmp_path / "r.nii.gz")
    flipped = image.as_reoriented(np.array([[0, -1], [1, 1], [2, 1]]))
    nibabel.save(flipped, tmp_path / "p.nii.gz")
    (problem,) = evaluate(tmp_path, reader="NibabelIO").problems
    assert "lies on another grid: direction" in problem
    assert [row["dice"] for row in evaluate(tmp_path, reader="NibabelIOWithReorient").rows] == [1, 1]


def test_checking_alone_gives_problems_and_no_rows(tmp_path):
    write(tmp_path / "r.nii.gz", volume())
    write(tmp_path / "p.nii.gz", volume())
    assert evaluate(tmp_path, score=False) == CaseResult()
    write(tmp_path / "p.nii.gz", volume() * 2)
    assert len(evaluate(tmp_path, score=False).problems) == 1


def test_a_failure_nobody_foresaw_names_the_case(tmp_path, monkeypatch):
    write(tmp_path / "r.nii.gz", volume())
    write(tmp_path / "p.nii.gz", volume())

    def fail(*args):
        raise RuntimeError("out of luck")

    monkeypatch.setattr("nnunet_ssl.evaluation.scoring.case.score_classes", fail)
    assert evaluate(tmp_path).problems == ("c: cannot be evaluated: out of luck",)
