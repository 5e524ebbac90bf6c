from pathlib import Path

import pytest

from nnunet_ssl.data.image_folder import list_images
from nnunet_ssl.errors import SemiSupervisedError


def folder_with(folder: Path, *names: str) -> str:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return str(folder)


def test_cases_with_their_channels_in_order(tmp_path):
    folder = folder_with(tmp_path, "b_0001.nii.gz", "a_0000.nii.gz", "b_0000.nii.gz", "a_1_0000.nii.gz")
    found = list_images(folder, ".nii.gz")
    assert found.problems == []
    assert {case: [Path(f).name for f in files] for case, files in found.cases.items()} == {
        "a": ["a_0000.nii.gz"],
        "a_1": ["a_1_0000.nii.gz"],
        "b": ["b_0000.nii.gz", "b_0001.nii.gz"],
    }


def test_what_is_no_image_is_ignored(tmp_path):
    folder = folder_with(tmp_path, "a_0000.tif", "a.json", "a_0000.json", "README.txt", ".DS_Store", "._b_0000.tif")
    (tmp_path / "sub_0000.tif").mkdir()
    found = list_images(folder, ".tif")
    assert list(found.cases) == ["a"] and found.problems == []


@pytest.mark.parametrize(
    "name", ["b_0000.nii", "b_0000.NII.GZ", "b.png", "b.dcm", "b_0000.mha", "b_0000.nii.gz.part", "b_0000"]
)
def test_wrong_ending(tmp_path, name):
    found = list_images(folder_with(tmp_path, "a_0000.nii.gz", name), ".nii.gz")
    assert list(found.cases) == ["a"]
    assert found.problems == [f"{name}: wrong file ending, the images of this dataset end in .nii.gz"]


@pytest.mark.parametrize("name", ["b.nii.gz", "b_000.nii.gz", "b0000.nii.gz", "_0000.nii.gz"])
def test_channel_missing_in_the_name(tmp_path, name):
    found = list_images(folder_with(tmp_path, name), ".nii.gz")
    assert found.cases == {}
    assert found.problems == [f"{name}: the channel is missing in the name, expected CASE_0000.nii.gz"]


def test_gap_in_the_channels(tmp_path):
    found = list_images(folder_with(tmp_path, "a_0001.png", "b_0000.png", "b_0003.png", "c_0000.png"), ".png")
    assert list(found.cases) == ["c"]
    assert found.problems == [
        "a: wrong number of channels, missing a_0000.png",
        "b: wrong number of channels, missing b_0001.png, b_0002.png",
    ]


def test_name_that_collides_with_a_segmentation(tmp_path):
    found = list_images(folder_with(tmp_path, "a_seg_0000.png"), ".png")
    assert found.cases == {} and "_seg" in found.problems[0]


def test_no_folder_and_no_image(tmp_path):
    with pytest.raises(SemiSupervisedError, match=r"does not exist: .*nothing_here"):
        list_images(str(tmp_path / "nothing_here"), ".png")
    with pytest.raises(SemiSupervisedError, match=r"no image in .*\n.*CASE_0000\.png"):
        list_images(folder_with(tmp_path, "README.txt"), ".png")
