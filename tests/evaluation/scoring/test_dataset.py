"""dataset.json: where it is found, and which classes it names."""

from __future__ import annotations

import pytest

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.evaluation.scoring.dataset import find_dataset, find_reader, is_validation_folder, read_labels
from tests.evaluation.scoring.folders import LABELS, Folders, dataset_json, volume, write, write_json

PLANS = {"dataset_name": "Dataset901_Tiny", "plans_name": "nnUNetPlans", "configurations": {}}


def test_beside_the_labels(tmp_path):
    found = find_dataset(*Folders(tmp_path).paths)
    assert found.path == str(tmp_path / "raw" / "dataset.json")
    assert [(c.name, c.values, c.label) for c in found.labels.classes] == [("ball", (1,), 1), ("box", (2,), 2)]
    assert (found.labels.known, found.labels.ignore, found.file_ending) == ({0, 1, 2}, None, ".nii.gz")


def test_with_the_predictions_and_above_a_fold(tmp_path):
    folders = Folders(tmp_path)
    write_json(folders.predictions / "dataset.json", dataset_json())
    assert find_dataset(*folders.paths).path == str(folders.predictions / "dataset.json")
    model = tmp_path / "model"
    write_json(model / "dataset.json", dataset_json())
    write_json(model / "plans.json", PLANS)
    validation = model / "fold_0" / "validation"
    validation.mkdir(parents=True)
    assert is_validation_folder(f"{validation}/")
    found = find_dataset(str(folders.references), f"{validation}/")
    assert (found.path, found.plans) == (str(model / "dataset.json"), PLANS)


def test_the_given_one_wins(tmp_path):
    folders = Folders(tmp_path)
    write_json(tmp_path / "other.json", dataset_json(labels={"background": 0, "all": 1}))
    found = find_dataset(*folders.paths, str(tmp_path / "other.json"))
    assert [c.name for c in found.labels.classes] == ["all"]


def test_none_and_two_that_differ(tmp_path):
    folders = Folders(tmp_path)
    write_json(folders.predictions / "dataset.json", dataset_json(labels={"background": 0, "ball": 2, "box": 1}))
    with pytest.raises(SemiSupervisedError, match="different datasets") as caught:
        find_dataset(*folders.paths)
    assert str(folders.raw / "dataset.json") in str(caught.value)
    assert "-djfile" in str(caught.value)
    for folder in (folders.predictions, folders.raw):
        (folder / "dataset.json").unlink()
    found = find_dataset(*folders.paths)  # the label files decide
    assert (found.labels, found.file_ending) == (None, ".nii.gz")
    for file in folders.predictions.glob("*.nii.gz"):
        file.rename(file.with_name(f"other_{file.name}"))
    with pytest.raises(SemiSupervisedError, match="no label file of the same name, and no dataset.json") as caught:
        find_dataset(*folders.paths)
    assert str(folders.raw / "dataset.json") in str(caught.value)


def test_other_descriptions_are_no_difference(tmp_path):
    folders = Folders(tmp_path)
    write_json(folders.predictions / "dataset.json", dataset_json(description="newer", numTraining=7))
    assert find_dataset(*folders.paths).path == str(folders.predictions / "dataset.json")


def test_regions_and_ignore_label():
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}
    found = read_labels(dataset_json(labels=labels, regions_class_order=[1, 2, 3]), None, "x")
    assert [(c.name, c.label) for c in found.classes] == [("whole", "1+2+3"), ("core", "2+3"), ("enhancing", 3)]
    assert (found.known, found.ignore) == ({0, 1, 2, 3}, 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": {"ball": 1}}, "Background"),
        ({"labels": {"0": "background", "1": "ball"}}, "Background"),
        ({"labels": {**LABELS, "ignore": 7}}, "highest"),
        ({"labels": {"background": 0, "whole": [1, 2]}}, "regions_class_order"),
        ({"labels": ["ball"]}, "labels"),
        ({"labels": {"background": 0}}, "no class besides the background"),
        ({"file_ending": "nii.gz"}, "file_ending"),
        ({"file_ending": None}, "file_ending"),
    ],
)
def test_unusable_dataset_json(tmp_path, content, message):
    folders = Folders(tmp_path)
    write_json(folders.raw / "dataset.json", dataset_json() | content)
    with pytest.raises(SemiSupervisedError, match=message) as caught:
        find_dataset(*folders.paths)
    assert str(folders.raw / "dataset.json") in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [("{", "not readable JSON"), ("[1]", "must hold a dictionary")])
def test_damaged_dataset_json(tmp_path, text, message):
    folders = Folders(tmp_path)
    (folders.raw / "dataset.json").write_text(text)
    with pytest.raises(SemiSupervisedError, match=message):
        find_dataset(*folders.paths)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("a.nii.gz", (4, 5, 6), "SimpleITKIO"),
        ("a.nrrd", (4, 5, 6), "SimpleITKIO"),
        ("a.nii", (4, 5, 6), "NibabelIO"),
        ("a.png", (5, 6), "NaturalImage2DIO"),
        ("a.tif", (5, 6), "NaturalImage2DIO"),
        ("a.tif", (5, 6, 7), "Tiff3DIO"),
    ],
)
def test_the_reader_is_nnunets(tmp_path, name, shape, expected, capfd):
    write(tmp_path / "raw" / "labelsTr" / name, volume(shape=shape))
    ending = name.removeprefix("a")
    dataset = find_dataset(*Folders(tmp_path, cases=(), ending=ending).paths)
    (tmp_path / f"bad{ending}").write_bytes(b"damaged")
    examples = [str(tmp_path / f"bad{ending}"), str(tmp_path / "raw" / "labelsTr" / name)]
    assert find_reader(dataset, examples) == expected
    assert capfd.readouterr() == ("", "")


def test_the_reader_of_the_plans_wins_where_it_reads_such_files(tmp_path):
    folders = Folders(tmp_path)
    for named, expected in (("NibabelIOWithReorient", "NibabelIOWithReorient"), ("Tiff3DIO", "SimpleITKIO")):
        write_json(folders.predictions / "plans.json", PLANS | {"image_reader_writer": named})
        assert find_reader(find_dataset(*folders.paths), [str(folders.references / "a.nii.gz")]) == expected
    write_json(folders.raw / "dataset.json", dataset_json(overwrite_image_reader_writer="NibabelIO"))
    assert find_reader(find_dataset(*folders.paths), [str(folders.references / "a.nii.gz")]) == "NibabelIO"


def test_an_ending_that_nobody_reads(tmp_path):
    folders = Folders(tmp_path, cases=(), ending=".jpg")
    with pytest.raises(SemiSupervisedError, match='no files that end in ".jpg"'):
        find_reader(find_dataset(*folders.paths), [])


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".png"])
def test_without_a_dataset_json_the_files_tell_their_ending(tmp_path, ending):
    folders = Folders(tmp_path, cases=(), ending=ending)
    (folders.raw / "dataset.json").unlink()
    for name in ("a", "b"):
        folders.add(name, volume(shape=(5, 6) if ending == ".png" else (4, 5, 6)))
    for folder in (folders.references, folders.predictions):
        (folder / "notes.txt").touch()
        (folder / f".hidden{ending}").touch()
    write(folders.references / "only.nii", volume())
    assert find_dataset(*folders.paths).file_ending == ending
