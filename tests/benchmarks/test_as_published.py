"""benchmarks/protocols/as_published.py: intensities, crops, grids, and the way back."""

from __future__ import annotations

import json
from pathlib import Path

import as_published
import numpy as np
import pytest
import SimpleITK as sitk

SHAPE = (4, 8, 6)


def put(path: Path, array: np.ndarray, spacing: tuple[float, ...] = (0.5, 0.5, 3.0)) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def get(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Dataset007_Some with one case, whose intensities are -100, 0, 100, ... along the last axis."""
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    label = np.zeros(SHAPE, np.uint8)
    label[1:3, 3:5, 2:4] = 2
    image = np.broadcast_to(np.arange(-100, 500, 100, dtype=np.int16), SHAPE)
    put(tmp_path / "Dataset007_Some" / "imagesTr" / "a_0000.nii.gz", image)
    put(tmp_path / "Dataset007_Some" / "labelsTr" / "a.nii.gz", label)
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "x": 1, "y": 2}, "numTraining": 1}
    (tmp_path / "Dataset007_Some" / "dataset.json").write_text(json.dumps({**description, "file_ending": ".nii.gz"}))
    return tmp_path


def make(raw: Path, *words: str) -> tuple[np.ndarray, np.ndarray]:
    assert as_published.main(["make", "-d", "7", "-o", "17", "-np", "1", *words]) == 0
    target = raw / "Dataset017_SomeAsPublished"
    assert json.loads((target / "dataset.json").read_text())["channel_names"] == {"0": "noNorm"}
    assert sitk.ReadImage(str(target / "labelsTr" / "a.nii.gz")).GetSpacing() == (1.0, 1.0, 1.0)
    return get(target / "imagesTr" / "a_0000.nii.gz"), get(target / "labelsTr" / "a.nii.gz")


def test_window_and_rescaling(raw):
    image, label = make(raw, "--window", "-50", "350", "--rescale")
    assert image[0, 0] == pytest.approx([0, 0.125, 0.375, 0.625, 0.875, 1.0])
    assert label.shape == SHAPE and np.unique(label).tolist() == [0, 2]


def test_z_score_is_of_the_whole_scan_before_the_crop(raw):
    image, label = make(raw, "--zscore", "--crop-label", "1", "1")
    own = np.arange(6) - 2.5
    assert label.shape == (3, 3, 3) and (label == 2).sum() == 8
    assert image[0, 0] == pytest.approx((own / own.std())[1:4], abs=1e-5)


def test_crops_are_wide_enough_and_the_same_each_time():
    label = np.zeros((10, 60, 60), bool)
    label[:, 20:30, 25:31] = True
    box = as_published.crop_box(label, "a", (2, 4), (1, 2), 20)
    assert box == as_published.crop_box(label, "a", (2, 4), (1, 2), 20)
    assert box[0] == slice(None)
    for axis, first, last, widen in ((1, 20, 29, 5), (2, 25, 30, 7)):
        assert first - widen - 4 <= box[axis].start <= first - widen - 2
        assert last + widen + 2 <= box[axis].stop <= last + widen + 4
    assert as_published.crop_box(label, "a", None, (1, 2), 20) == (slice(None),) * 3
    at_the_border = as_published.crop_box(label, "a", (50, 50), (1, 2), 0)
    assert at_the_border[1:] == (slice(0, 60), slice(0, 60))


def test_a_grid_and_the_way_back(raw, tmp_path):
    image, label = make(raw, "--size", "0", "16", "12", "--nearest")
    assert image.shape == label.shape == (4, 16, 12)
    assert set(np.unique(image)) == set(range(-100, 500, 100))
    predictions, references = tmp_path / "p", raw / "Dataset007_Some" / "labelsTr"
    put(predictions / "a.nii.gz", label, (1.0, 1.0, 1.0))
    (predictions / "dataset.json").write_text("{}")
    assert as_published.main(["back", "-i", str(predictions), "-ref", str(references), "-o", str(tmp_path / "o")]) == 0
    assert np.array_equal(get(tmp_path / "o" / "a.nii.gz"), get(references / "a.nii.gz"))
    assert sitk.ReadImage(str(tmp_path / "o" / "a.nii.gz")).GetSpacing() == (0.5, 0.5, 3.0)
    assert (tmp_path / "o" / "dataset.json").is_file()


def test_images_are_trilinear(raw):
    image, _ = make(raw, "--size", "0", "0", "12")
    assert image[0, 0, :4] == pytest.approx([-100, -75, -25, 25])  # half a voxel further at each end


def test_an_equal_dataset_is_left_and_another_refused(raw, capsys):
    make(raw, "--window", "0", "1")
    before = {path: path.stat().st_mtime_ns for path in raw.rglob("*")}
    words = ["make", "-d", "7", "-o", "17", "-np", "1", "--window"]
    assert as_published.main([*words, "0", "1"]) == 0
    assert "left as it is" in capsys.readouterr().out
    assert as_published.main([*words, "0", "2"]) == 1
    assert "Dataset 17 exists" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in raw.rglob("*")}


def test_what_is_refused(raw, tmp_path, capsys):
    assert as_published.main(["make", "-d", "8", "-o", "17"]) == 1
    assert "There is no dataset 8" in capsys.readouterr().err
    assert as_published.main(["make", "-d", "7", "-o", "7"]) == 1
    assert "Dataset 7 exists" in capsys.readouterr().err
    (tmp_path / "p").mkdir()
    put(tmp_path / "p" / "b.nii.gz", np.zeros(SHAPE, np.uint8))
    words = [
        "back",
        "-i",
        str(tmp_path / "p"),
        "-ref",
        str(raw / "Dataset007_Some" / "labelsTr"),
        "-o",
        str(tmp_path / "o"),
    ]
    assert as_published.main(words) == 1
    assert "lacks the labels of these predictions" in capsys.readouterr().err and not (tmp_path / "o").exists()
    assert [p.name for p in raw.glob("Dataset*")] == ["Dataset007_Some"] and not list(raw.glob(".*tmp"))
