"""From the official folder layouts, imitated with a few voxels, to nnU-Net's raw format."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import prepare_acdc
import prepare_crag
import prepare_kits19
import prepare_la
import prepare_lits
import prepare_pancreas_ct
import prepare_synapse
import pytest
import SimpleITK as sitk
from protocol_file import read_protocol
from skimage import io

from tests.benchmarks.conftest import PROTOCOLS
from tests.benchmarks.imitated import write_series

SHAPE = (6, 7, 8)  # z, y, x
SCRIPTS = (prepare_acdc, prepare_crag, prepare_kits19, prepare_la, prepare_lits, prepare_pancreas_ct, prepare_synapse)


@pytest.fixture(autouse=True)
def raw(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    monkeypatch.setenv("nnUNet_raw", str(folder))
    return folder


def image(seed: int = 0, dtype=np.int16, spacing=(0.625, 0.625, 1.25)) -> sitk.Image:
    array = np.random.RandomState(seed).randint(0, 200, SHAPE).astype(dtype)
    result = sitk.GetImageFromArray(array)
    result.SetSpacing(spacing)
    result.SetOrigin((1.0, -2.0, 3.0))
    result.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    return result


def label(values=(1,), like: sitk.Image | None = None, shape=SHAPE, dtype=np.uint8) -> sitk.Image:
    array = np.zeros(shape, dtype)
    for position, value in enumerate(values):
        array[1, 2 + position % 4, position // 4 + 1] = value
    result = sitk.GetImageFromArray(array)
    if like is not None:
        result.CopyInformation(like)
    return result


def write(pixels: sitk.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(pixels, str(path))


def array_of(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def nothing_left(raw: Path) -> bool:
    return not list(raw.iterdir())


def make_la(folder: Path, scans=("A" * 20, "B" * 20)) -> None:
    for index, scan in enumerate(scans):
        pixels = image(index, np.uint8)
        write(pixels, folder / scan / "lgemri.nrrd")
        write(label((255, 255), pixels), folder / scan / "laendo.nrrd")


def test_la(tmp_path, raw, capsys):
    source = tmp_path / "2018LA_Seg_Training Set"
    make_la(source)
    assert prepare_la.main(["-i", str(source), "-np", "1"]) == 0
    target = raw / "Dataset201_LA"
    assert str(target) in capsys.readouterr().out
    assert sorted(path.name for path in (target / "imagesTr").iterdir()) == [f"{c * 20}_0000.nii.gz" for c in "AB"]
    for index, scan in enumerate(("A" * 20, "B" * 20)):
        assert np.array_equal(
            array_of(target / "imagesTr" / f"{scan}_0000.nii.gz"), sitk.GetArrayFromImage(image(index))
        )
        written = sitk.ReadImage(str(target / "labelsTr" / f"{scan}.nii.gz"))
        assert np.array_equal(sitk.GetArrayFromImage(written) * 255, sitk.GetArrayFromImage(label((255, 255))))
        assert written.GetSpacing() == pytest.approx((0.625, 0.625, 1.25))
        assert written.GetDirection() == image().GetDirection()
    content = json.loads((target / "dataset.json").read_text())
    assert content["labels"] == read_protocol(PROTOCOLS / "la.yaml")["labels"]
    assert (content["numTraining"], content["file_ending"]) == (2, ".nii.gz")
    assert [path.name for path in raw.iterdir()] == ["Dataset201_LA"]


def test_bad_cases_are_all_listed_and_nothing_is_left(tmp_path, raw, capsys):
    source = tmp_path / "la"
    make_la(source, [letter * 20 for letter in "ABCDEF"])
    write(label((255, 3), image()), source / ("B" * 20) / "laendo.nrrd")
    write(label((255,), shape=(6, 7, 9)), source / ("C" * 20) / "laendo.nrrd")
    write(label((), image()), source / ("D" * 20) / "laendo.nrrd")
    (source / ("E" * 20) / "lgemri.nrrd").write_bytes(b"NRRD0004\ndamaged")
    assert prepare_la.main(["-i", str(source), "-np", "1"]) == 1
    message = capsys.readouterr().err
    assert f"{'B' * 20}: label values 3; allowed: 0, 255" in message
    assert f"{'C' * 20}: the image has (8, 7, 6) voxels, the label (9, 7, 6)" in message
    assert f"{'D' * 20}: the label holds background only" in message
    assert f"{'E' * 20}: not readable" in message
    assert "A" * 20 not in message and "F" * 20 not in message
    assert nothing_left(raw)


def test_label_header_that_differs_is_told(tmp_path, raw, capsys):
    source = tmp_path / "la"
    make_la(source, ["A" * 20])
    write(label((255,)), source / ("A" * 20) / "laendo.nrrd")  # spacing 1, origin 0
    assert prepare_la.main(["-i", str(source), "-np", "1"]) == 0
    assert f"NOTE: {'A' * 20}: spacing of the label (1, 1, 1) replaced" in capsys.readouterr().out
    written = sitk.ReadImage(str(raw / "Dataset201_LA" / "labelsTr" / f"{'A' * 20}.nii.gz"))
    assert written.GetOrigin() == pytest.approx((1.0, -2.0, 3.0))


def test_an_existing_dataset_is_kept(tmp_path, raw, capsys):
    source = tmp_path / "la"
    make_la(source)
    (raw / "Dataset201_Mine").mkdir()
    assert prepare_la.main(["-i", str(source), "-np", "1"]) == 1
    assert "Dataset201_Mine" in capsys.readouterr().err
    assert [path.name for path in raw.iterdir()] == ["Dataset201_Mine"]


def test_the_same_scans_again_are_left_as_they_are(tmp_path, raw, capsys):
    source = tmp_path / "la"
    make_la(source)
    assert prepare_la.main(["-i", str(source), "-np", "1"]) == 0
    before = {path: path.stat().st_mtime_ns for path in raw.rglob("*")}
    assert prepare_la.main(["-i", str(source), "-np", "1"]) == 0
    assert (
        "Dataset 201 exists already, made of files of the same names and sizes in the same way"
        in capsys.readouterr().out
    )
    make_la(source, ["C" * 20])
    assert prepare_la.main(["-i", str(source), "-np", "1"]) == 1
    assert "Dataset 201 exists" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in raw.rglob("*")}


def test_kidney_and_tumour_apart_are_another_dataset(tmp_path, raw, capsys):
    for number in range(2):
        pixels = image(number)
        folder = tmp_path / "data" / f"case_{number:05d}"
        write(pixels, folder / "imaging.nii.gz")
        write(label((1, 2), pixels), folder / "segmentation.nii.gz")
    words = ["-i", str(tmp_path / "data"), "-np", "1"]
    assert prepare_kits19.main([*words, "--one-class"]) == 0
    assert prepare_kits19.main(words) == 1
    assert "Dataset 204 exists" in capsys.readouterr().err


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_a_folder_of_another_layout_is_refused(script, tmp_path, raw, capsys):
    (tmp_path / "other" / "something").mkdir(parents=True)
    more = ["-l", str(tmp_path / "other")] if script is prepare_pancreas_ct else []
    assert script.main(["-i", str(tmp_path / "other"), *more]) == 1
    message = capsys.readouterr().err
    assert "is not laid out like the official download" in message and "Expected: " in message
    assert nothing_left(raw)


def test_la_lists_missing_files(tmp_path, raw, capsys):
    make_la(tmp_path / "la", ["A" * 20, "B" * 20, "C" * 20])
    missing = [tmp_path / "la" / ("A" * 20) / "laendo.nrrd", tmp_path / "la" / ("C" * 20) / "lgemri.nrrd"]
    for path in missing:
        path.unlink()
    assert prepare_la.main(["-i", str(tmp_path / "la")]) == 1
    message = capsys.readouterr().err
    assert all(f"{path}: missing" in message for path in missing)


def test_synapse_keeps_the_thirteen_organs(tmp_path, raw):
    for number in (1, 40):
        pixels = image(number)
        write(pixels, tmp_path / "Training" / "img" / f"img{number:04d}.nii.gz")
        write(
            label(range(1, 14), pixels, dtype=np.float32), tmp_path / "Training" / "label" / f"label{number:04d}.nii.gz"
        )
    assert prepare_synapse.main(["-i", str(tmp_path / "Training"), "-np", "1"]) == 0
    target = raw / "Dataset203_Synapse"
    found = array_of(target / "labelsTr" / "synapse_0040.nii.gz")
    assert np.array_equal(found, sitk.GetArrayFromImage(label(range(1, 14))))
    assert found.dtype == np.uint8
    assert (target / "imagesTr" / "synapse_0001_0000.nii.gz").is_file()
    content = json.loads((target / "dataset.json").read_text())
    assert content["labels"] == read_protocol(PROTOCOLS / "synapse.yaml")["labels"]
    assert content["channel_names"] == {"0": "CT"}


def test_synapse_with_eight_organs_leaves_the_others_to_the_background(tmp_path, raw):
    pixels = image(1)
    write(pixels, tmp_path / "Training" / "img" / "img0001.nii.gz")
    write(label(range(1, 14), pixels), tmp_path / "Training" / "label" / "label0001.nii.gz")
    arguments = ["-i", str(tmp_path / "Training"), "-np", "1", "-d", "206", "--organs", "8"]
    assert prepare_synapse.main(arguments) == 0
    target = raw / "Dataset206_Synapse8"
    given = sitk.GetArrayFromImage(label(range(1, 14)))
    expected = np.array([0, 7, 4, 3, 2, 0, 5, 8, 1, 0, 0, 6, 0, 0])[given.astype(int)]
    assert np.array_equal(array_of(target / "labelsTr" / "synapse_0001.nii.gz"), expected)
    content = json.loads((target / "dataset.json").read_text())
    assert content["labels"] == read_protocol(PROTOCOLS / "synapse_8_organs.yaml")["labels"]


def test_acdc_takes_the_labelled_frames(tmp_path, raw, capsys):
    patient = tmp_path / "training" / "patient007"
    pixels = image()
    for name in ("frame01", "frame07", "4d"):
        write(pixels, patient / f"patient007_{name}.nii.gz")
    write(label((1, 2, 3), pixels), patient / "patient007_frame01_gt.nii.gz")
    (patient / "Info.cfg").write_text("Group: DCM")
    assert prepare_acdc.main(["-i", str(tmp_path), "-np", "1"]) == 1
    message = capsys.readouterr().err
    assert f"{patient / 'patient007_frame07.nii.gz'}: no label" in message and "4d" not in message
    write(label((0, 1, 2), pixels), patient / "patient007_frame07_gt.nii.gz")
    assert prepare_acdc.main(["-i", str(tmp_path), "-np", "1"]) == 0
    target = raw / "Dataset027_ACDC"
    names = ["patient007_frame01", "patient007_frame07"]
    assert sorted(p.name for p in (target / "imagesTr").iterdir()) == [f"{name}_0000.nii.gz" for name in names]
    assert sorted(p.name for p in (target / "labelsTr").iterdir()) == [f"{name}.nii.gz" for name in names]
    assert (
        json.loads((target / "dataset.json").read_text())["labels"] == read_protocol(PROTOCOLS / "acdc.yaml")["labels"]
    )


def test_lits_takes_both_batches_and_lists_what_is_alone(tmp_path, raw, capsys):
    batches = [tmp_path / "Training Batch 1", tmp_path / "Training Batch 2"]
    for number, batch in ((0, 0), (27, 0), (130, 1)):
        pixels = image(number)
        write(pixels, batches[batch] / f"volume-{number}.nii")
        write(label((1, 2), pixels), batches[batch] / f"segmentation-{number}.nii")
    write(image(), batches[1] / "volume-99.nii")
    arguments = ["-i", *map(str, batches), "-np", "1"]
    assert prepare_lits.main(arguments) == 1
    assert f"{batches[1] / 'volume-99.nii'}: no label" in capsys.readouterr().err
    (batches[1] / "volume-99.nii").unlink()
    assert prepare_lits.main(arguments) == 0
    found = sorted(path.name for path in (raw / "Dataset205_LiTS" / "labelsTr").iterdir())
    assert found == ["lits_000.nii.gz", "lits_027.nii.gz", "lits_130.nii.gz"]
    assert json.loads((raw / "Dataset205_LiTS" / "dataset.json").read_text())["labels"]["tumor"] == 2


def test_kits19_leaves_out_the_cases_without_label(tmp_path, raw):
    for number in (0, 209, 210):
        folder, pixels = tmp_path / "data" / f"case_{number:05d}", image(number)
        write(pixels, folder / "imaging.nii.gz")
        if number < 210:
            write(label((1, 2), pixels), folder / "segmentation.nii.gz")
    assert prepare_kits19.main(["-i", str(tmp_path / "data"), "-np", "1"]) == 0
    found = sorted(path.name for path in (raw / "Dataset204_KiTS19" / "imagesTr").iterdir())
    assert found == ["case_00000_0000.nii.gz", "case_00209_0000.nii.gz"]


def test_kits19_as_one_class(tmp_path, raw):
    folder, pixels = tmp_path / "data" / "case_00000", image(0)
    write(pixels, folder / "imaging.nii.gz")
    write(label((1, 2), pixels), folder / "segmentation.nii.gz")
    assert prepare_kits19.main(["-i", str(tmp_path / "data"), "--one-class", "-d", "9", "-np", "1"]) == 0
    target = raw / "Dataset009_KiTS19Whole"
    assert json.loads((target / "dataset.json").read_text())["labels"] == {"background": 0, "kidney": 1}
    written = array_of(target / "labelsTr" / "case_00000.nii.gz")
    assert np.array_equal(written, array_of(folder / "segmentation.nii.gz") > 0)


# --- Pancreas-CT: DICOM series and labels whose headers turn another way ---


@pytest.fixture
def pancreas(tmp_path) -> tuple[Path, Path, np.ndarray]:
    """Folders of the images and labels of PANCREAS_0001, and its mask (z, y, x); the label's header turns y around."""
    mask = np.zeros(SHAPE, bool)
    mask[1:3, 1:3, 2:5] = True
    images, labels = tmp_path / "Pancreas-CT", tmp_path / "labels"
    write_series(images / "PANCREAS_0001" / "11-24-2015" / "Pancreas-18957", np.where(mask, 90, -900))
    turned = sitk.GetImageFromArray(mask[:, ::-1].astype(np.uint8))
    turned.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
    write(turned, labels / "label0001.nii.gz")
    return images, labels, mask


def test_pancreas_turns_labels_to_the_images(pancreas, raw):
    images, labels, mask = pancreas
    (images / "PANCREAS_0025").mkdir()  # withdrawn: its label is still there, its images are not
    write(label(), labels / "label0025.nii.gz")
    assert prepare_pancreas_ct.main(["-i", str(images), "-l", str(labels), "-np", "1"]) == 0
    target = raw / "Dataset202_PancreasCT"
    assert [path.name for path in (target / "labelsTr").iterdir()] == ["PANCREAS_0001.nii.gz"]
    assert np.array_equal(array_of(target / "labelsTr" / "PANCREAS_0001.nii.gz") > 0, mask)
    written = sitk.ReadImage(str(target / "imagesTr" / "PANCREAS_0001_0000.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(written), np.where(mask, 90, -900))
    assert written.GetSpacing() == pytest.approx((0.5, 0.5, 2.0))


def test_pancreas_notices_a_flipped_label(pancreas, raw, capsys):
    images, labels, mask = pancreas
    flipped = sitk.GetImageFromArray(mask[::-1, ::-1].astype(np.uint8))
    flipped.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
    write(flipped, labels / "label0001.nii.gz")
    arguments = ["-i", str(images), "-l", str(labels), "-np", "1"]
    assert prepare_pancreas_ct.main(arguments) == 1
    message = capsys.readouterr().err
    assert "PANCREAS_0001: only 0% of the label lies on soft tissue" in message
    assert "mirrored along z the label fits better (100%, not 0%); see --flip" in message
    assert nothing_left(raw)
    assert prepare_pancreas_ct.main([*arguments, "--flip", "z"]) == 0
    assert np.array_equal(array_of(raw / "Dataset202_PancreasCT" / "labelsTr" / "PANCREAS_0001.nii.gz") > 0, mask)


def test_pancreas_lists_what_does_not_belong_together(pancreas, raw, capsys):
    images, labels, mask = pancreas
    write_series(images / "PANCREAS_0002" / "a", mask)
    write_series(images / "PANCREAS_0002" / "b", mask)
    write_series(images / "PANCREAS_0003" / "a", mask)
    write(label(), labels / "label0004.nii.gz")
    assert prepare_pancreas_ct.main(["-i", str(images), "-l", str(labels)]) == 1
    message = capsys.readouterr().err
    assert "PANCREAS_0002: 2 folders with DICOM files, 1 expected" in message
    assert f"{images / 'PANCREAS_0003' / 'a'}: no label" in message
    assert f"{labels / 'label0004.nii.gz'}: no images" in message


def test_pancreas_refuses_two_series_in_one_folder(pancreas, raw, capsys):
    images, labels, mask = pancreas
    folder = next(images.glob("*/*/*"))
    write_series(folder / "more", mask, uid="1.2.4")
    for path in (folder / "more").iterdir():
        path.rename(folder / f"second_{path.name}")
    (folder / "more").rmdir()
    assert prepare_pancreas_ct.main(["-i", str(images), "-l", str(labels), "-np", "1"]) == 1
    assert "holds 2 DICOM series, 1 expected" in capsys.readouterr().err


@pytest.mark.slow
def test_as_a_command_with_two_processes(pancreas, raw):
    images, labels, mask = pancreas
    command = [sys.executable, str(PROTOCOLS / "prepare_pancreas_ct.py"), "-i", str(images), "-l", str(labels)]
    done = subprocess.run([*command, "-np", "2"], capture_output=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr.decode("utf-8")
    assert np.array_equal(array_of(raw / "Dataset202_PancreasCT" / "labelsTr" / "PANCREAS_0001.nii.gz") > 0, mask)


# --- CRAG ---


def make_crag(folder: Path) -> np.ndarray:
    """Two images of two parts; returns the glands, each with its own value."""
    glands = np.zeros((9, 11), np.uint8)
    glands[1:3, 2:5], glands[5:8, 6:9] = 1, 2
    for part, annotation in (("train", "Annotation"), ("valid", "Annotations")):
        for name, pixels in (("Images", np.full((9, 11, 3), 7, np.uint8)), (annotation, glands)):
            (folder / part / name).mkdir(parents=True)
            file = folder / part / name / f"{'train' if part == 'train' else 'test'}_1.png"
            io.imsave(str(file), pixels, check_contrast=False)
    return glands


def test_crag_makes_one_class_of_the_glands(tmp_path, raw):
    glands = make_crag(tmp_path / "CRAG")
    assert prepare_crag.main(["-i", str(tmp_path / "CRAG")]) == 0
    target = raw / "Dataset207_CRAG"
    assert sorted(path.name for path in (target / "imagesTr").iterdir()) == [
        "train_1_0000.png",
        "valid_test_1_0000.png",
    ]
    assert np.array_equal(io.imread(str(target / "labelsTr" / "train_1.png")), (glands > 0).astype(np.uint8))
    assert io.imread(str(target / "imagesTr" / "train_1_0000.png")).shape == (9, 11, 3)
    content = json.loads((target / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "R", "1": "G", "2": "B"} and content["numTraining"] == 2


def test_crag_again_is_left_as_it_is(tmp_path, raw, capsys):
    make_crag(tmp_path / "CRAG")
    assert prepare_crag.main(["-i", str(tmp_path / "CRAG")]) == 0
    before = {path: path.stat().st_mtime_ns for path in raw.rglob("*")}
    assert prepare_crag.main(["-i", str(tmp_path / "CRAG")]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in raw.rglob("*")}
    assert (
        "Dataset 207 exists already, made of files of the same names and sizes in the same way"
        in capsys.readouterr().out
    )
    for part in ("Images", "Annotations"):
        (tmp_path / "CRAG" / "valid" / part / "test_1.png").unlink()
    assert prepare_crag.main(["-i", str(tmp_path / "CRAG")]) == 1
    assert "made of other files or in another way" in capsys.readouterr().err


def test_crag_lists_bad_images(tmp_path, raw, capsys):
    glands = make_crag(tmp_path / "CRAG")
    io.imsave(str(tmp_path / "CRAG" / "train" / "Images" / "train_1.png"), glands, check_contrast=False)
    io.imsave(str(tmp_path / "CRAG" / "valid" / "Annotations" / "test_1.png"), glands[:5], check_contrast=False)
    assert prepare_crag.main(["-i", str(tmp_path / "CRAG")]) == 1
    message = capsys.readouterr().err
    assert "train_1: the image is not RGB" in message
    assert "valid_test_1: the annotation has shape (5, 11), the image (9, 11, 3)" in message
    assert nothing_left(raw)
