"""Spacing, direction and origin as each of nnU-Net's readers gives them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

from nnunet_ssl.evaluation.scoring.grid import Grid, grid_difference, grid_of, spacing_problem
from nnunet_ssl.evaluation.scoring.label_file import read_label_file
from tests.evaluation.scoring.folders import volume, write

NIFTI_READERS = ("SimpleITKIO", "NibabelIO", "NibabelIOWithReorient")
ROTATED = np.array([[np.cos(0.5), -np.sin(0.5), 0], [np.sin(0.5), np.cos(0.5), 0], [0, 0, 1]])
PERMUTED = np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]])  # the first axis of the file points to y, and so on
SPACING = (3.0, 2.0, 0.5)  # z y x


def grid(path, reader: str) -> Grid:
    file = read_label_file(str(path), recursive_find_reader_writer_by_name(reader)())
    assert not isinstance(file, str), file
    return file.grid


@pytest.mark.parametrize("reader", NIFTI_READERS)
@pytest.mark.parametrize("direction", [np.eye(3), ROTATED, PERMUTED], ids=["identity", "rotated", "permuted"])
def test_voxel_to_millimetre_of_nifti(tmp_path, reader, direction):
    """Two marked voxels are as far apart in mm by the grid as by the header that was written."""
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[0, 1, 2], labels[3, 1, 4] = 1, 2
    write(tmp_path / "a.nii.gz", labels, SPACING, direction, (10.0, -20.0, 30.0))
    file = read_label_file(str(tmp_path / "a.nii.gz"), recursive_find_reader_writer_by_name(reader)())
    found = [np.argwhere(file.labels == value)[0] for value in (1, 2)]
    expected = direction @ (np.array([4 - 2, 0, 3 - 0]) * SPACING[::-1])
    world = [file.grid.affine @ [*reversed(index), 1] for index in found]
    flip = np.diag([1, 1, 1]) if reader == "SimpleITKIO" else np.diag([-1, -1, 1])  # nibabel's world is RAS
    assert (world[1] - world[0])[:3] == pytest.approx(flip @ expected, abs=1e-4)
    along_axes = np.abs(found[1] - found[0]) * file.grid.spacing
    assert np.linalg.norm(along_axes) == pytest.approx(np.linalg.norm(expected), abs=1e-4)
    assert np.linalg.norm(file.grid.affine[:3, :3], axis=0)[::-1] == pytest.approx(file.grid.spacing, abs=1e-4)
    assert file.grid.has_spacing


def test_reorienting_permutes_array_and_spacing_together(tmp_path):
    write(tmp_path / "a.nii.gz", volume(shape=(6, 8, 10)), SPACING, PERMUTED)
    plain, reoriented = (grid(tmp_path / "a.nii.gz", reader) for reader in ("NibabelIO", "NibabelIOWithReorient"))
    assert dict(zip(plain.shape, plain.spacing, strict=True)) == pytest.approx({6: 3, 8: 2, 10: 0.5})
    assert dict(zip(reoriented.shape, reoriented.spacing, strict=True)) == pytest.approx({6: 3, 8: 2, 10: 0.5})
    assert plain.shape != reoriented.shape


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_a_flat_image_of_simpleitk_has_two_axes(tmp_path, ending):
    write(tmp_path / f"a{ending}", volume(shape=(7, 9)), (2.0, 0.5))
    found = grid(tmp_path / f"a{ending}", "SimpleITKIO")
    assert (found.shape, found.spacing) == ((7, 9), (2.0, 0.5))


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_natural_images_have_two_axes_and_no_spacing(tmp_path, ending):
    write(tmp_path / f"a{ending}", volume(shape=(7, 9)))
    found = grid(tmp_path / f"a{ending}", "NaturalImage2DIO")
    assert (found.shape, found.spacing, found.has_spacing, found.affine) == ((7, 9), (1, 1), False, None)


def test_tiff_stacks_have_the_spacing_of_the_file_beside_them(tmp_path):
    write(tmp_path / "a.tif", volume(), SPACING)
    write(tmp_path / "b.tif", volume())
    with_spacing, without = grid(tmp_path / "a.tif", "Tiff3DIO"), grid(tmp_path / "b.tif", "Tiff3DIO")
    assert (with_spacing.spacing, with_spacing.has_spacing) == (SPACING, True)
    assert (without.spacing, without.has_spacing) == ((1, 1, 1), False)
    assert grid_difference(with_spacing, without) == ""  # nothing to compare


BASE = {"spacing": (3.0, 2.0, 0.5), "direction": np.eye(3), "origin": (1.0, 2.0, 3.0)}


@pytest.mark.parametrize("reader", NIFTI_READERS[:2])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spacing": (3.0, 2.1, 0.5)}, r"spacing \(0\.5, 2\.1, 3\), the reference has \(0\.5, 2, 3\); corners"),
        ({"direction": ROTATED}, r"direction .*, the reference has .*; corners"),
        ({"direction": np.diag([-1, 1, 1])}, r"direction .*; corners are up to 18 mm"),
        ({"origin": (1.0, 2.0, 3.5)}, r"origin .*corners are up to 0\.5 mm apart$"),
    ],
)
def test_other_grids_are_named(tmp_path, reader, change, message):
    write(tmp_path / "reference.nii.gz", np.zeros((5, 6, 19), np.uint8), **BASE)
    write(tmp_path / "prediction.nii.gz", np.zeros((5, 6, 19), np.uint8), **(BASE | change))
    difference = grid_difference(*(grid(tmp_path / f"{name}.nii.gz", reader) for name in ("reference", "prediction")))
    assert re.search(message, difference), difference


def test_rounding_of_headers_is_no_other_grid(tmp_path):
    write(tmp_path / "reference.nii.gz", volume(), SPACING, ROTATED, (100.1234567, -200.7654321, 30.0))
    rounded = np.round(ROTATED, 5)
    write(tmp_path / "prediction.nrrd", volume(), SPACING, rounded, (100.1235, -200.7654, 30.001))
    pair = grid(tmp_path / "reference.nii.gz", "SimpleITKIO"), grid(tmp_path / "prediction.nrrd", "SimpleITKIO")
    assert not np.array_equal(pair[0].affine, pair[1].affine)
    assert grid_difference(*pair) == ""


def test_other_shapes_are_named_with_x_first():
    first, second = Grid((4, 5, 6), (1, 1, 1), None, False), Grid((4, 5, 7), (1, 1, 1), None, False)
    assert grid_difference(first, second) == "7 x 5 x 4 voxels, the reference has 6 x 5 x 4"
    assert "6 x 5 voxels" in grid_difference(first, Grid((5, 6), (1, 1), None, False))


def test_other_spacing_beside_a_tiff():
    pair = [Grid((4, 5, 6), spacing, None, True) for spacing in ((1.0, 1.0, 2.0), (1.0, 1.0, 2.2))]
    assert grid_difference(*pair) == "spacing 2.2 x 1 x 1 mm, the reference has 2 x 1 x 1 mm"


def test_unusable_spacing(tmp_path):
    reader = recursive_find_reader_writer_by_name("NibabelIO")()
    for bad in (0.0, -1.0, np.nan):
        properties = {"spacing": [1, 1, bad], "nibabel_stuff": {"original_affine": np.eye(4)}}
        found = grid_of(reader, "a", (2, 2, 2), properties)
        assert "unusable spacing" in spacing_problem(found)
    assert spacing_problem(Grid((2, 2), (1.0, 0.1), None, True)) == ""
