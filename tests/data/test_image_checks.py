"""What reading an image shows: one test per kind of unusable image, in every format that nnU-Net reads."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from PIL import Image
from skimage import io

from nnunet_ssl.data.image_checks import CaseReport, Needs, check_images, inspect_case, nonzero_shape
from nnunet_ssl.data.image_ranges import unusual_cases
from nnunet_ssl.data.workers import Workers
from nnunet_ssl.errors import SemiSupervisedError

SPACING = (3.0, 1.0, 0.5)


def needs(reader: str = "SimpleITKIO", channels: int = 1, ending: str = ".nii.gz", **changes) -> Needs:
    names = tuple(f"T{c + 1}" for c in range(channels))
    values = {
        **{"reader": reader, "channels": names, "file_ending": ending, "slice_axis": None},
        **{"transpose": (0, 1, 2), "spacings": {"3d_fullres": (1.0, 1.0, 1.0)}},
    }
    return Needs(**{**values, **changes})


def volume(shape=(8, 9, 10), dtype=np.float32) -> np.ndarray:
    return np.random.default_rng(0).uniform(1, 200, shape).astype(dtype)


def write(folder: Path, name: str, array: np.ndarray, spacing=SPACING) -> str:
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing[::-1])
    SimpleITK.WriteImage(image, str(folder / name))
    return str(folder / name)


def problems_of(files: list[str], wanted: Needs) -> tuple[str, ...]:
    report = inspect_case("a", files, wanted)
    assert not report.problems or report.shape is None or "become" in report.problems[0]
    return report.problems


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".gipl"])
def test_volumes_of_simpleitk(tmp_path, ending):
    report = inspect_case("a", [write(tmp_path, f"a_0000{ending}", volume())], needs(ending=ending))
    assert report == CaseReport("a", (), (), (8, 9, 10), SPACING)


@pytest.mark.parametrize("reader", ["NibabelIO", "NibabelIOWithReorient"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_volumes_of_nibabel(tmp_path, reader, ending):
    nibabel.save(nibabel.Nifti1Image(volume().T, np.diag([0.5, 1.0, 3.0, 1.0])), tmp_path / f"a_0000{ending}")
    report = inspect_case("a", [str(tmp_path / f"a_0000{ending}")], needs(reader, ending=ending))
    assert (report.problems, report.shape, report.spacing) == ((), (8, 9, 10), SPACING)


def test_tiff_with_its_spacing_beside_it(tmp_path):
    tifffile.imwrite(tmp_path / "a_0000.tif", volume())
    (tmp_path / "a.json").write_text(json.dumps({"spacing": SPACING}))
    report = inspect_case("a", [str(tmp_path / "a_0000.tif")], needs("Tiff3DIO", ending=".tif"))
    assert report == CaseReport("a", (), (), (8, 9, 10), SPACING)


def test_tiff_without_spacing_is_remarked(tmp_path, capfd):
    tifffile.imwrite(tmp_path / "a_0000.tif", volume())
    report = inspect_case("a", [str(tmp_path / "a_0000.tif")], needs("Tiff3DIO", ending=".tif"))
    assert report.problems == () and "no spacing file" in report.remarks[0]
    assert capfd.readouterr() == ("", "")


FLAT = {"slice_axis": 0, "spacings": {"2d": (1.0, 1.0)}}


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_natural_images_have_a_single_slice(tmp_path, ending):
    io.imsave(tmp_path / f"a_0000{ending}", volume((20, 30, 3), np.uint8), check_contrast=False)
    wanted = needs("NaturalImage2DIO", channels=3, ending=ending, **FLAT)
    report = inspect_case("a", [str(tmp_path / f"a_0000{ending}")], wanted)
    assert report == CaseReport("a", (), (), (1, 20, 30), (999.0, 1.0, 1.0))


def test_single_slice_is_refused_in_3d(tmp_path):
    file = write(tmp_path, "a_0000.nii.gz", volume((1, 9, 10)))
    assert problems_of([file], needs()) == ("fewer than 2 voxels on an axis: 1 x 9 x 10",)
    assert problems_of([file], needs(**FLAT)) == ()
    assert problems_of([file], needs(**{**FLAT, "slice_axis": 2})) == ("fewer than 2 voxels on an axis: 1 x 9 x 10",)


def test_missing_channel(tmp_path):
    files = [write(tmp_path, "a_0000.nii.gz", volume())]
    (problem,) = problems_of(files, needs(channels=3))
    assert "wrong number of channels: 1 in 1 file(s), needed 3 (T1, T2, T3)" in problem
    assert "missing a_0001.nii.gz, a_0002.nii.gz" in problem


def test_grey_image_among_coloured_ones(tmp_path):
    io.imsave(tmp_path / "a_0000.png", volume((20, 30), np.uint8), check_contrast=False)
    wanted = needs("NaturalImage2DIO", channels=3, ending=".png", **FLAT)
    (problem,) = problems_of([str(tmp_path / "a_0000.png")], wanted)
    assert problem.startswith(
        "wrong number of channels: 1 in 1 file(s), needed 3 (T1, T2, T3); save it with 3 channels"
    )


def test_one_damaged_header_does_not_hide_the_others(tmp_path, capfd):
    damaged = Path(write(tmp_path, "a_0000.nii", volume()))
    whole = bytearray(damaged.read_bytes())
    whole[70:72] = (9999).to_bytes(2, "little")  # datatype
    damaged.write_bytes(bytes(whole))
    cases = {"a": [str(damaged)], "b": [write(tmp_path, "b_0000.nii", volume((1, 9, 10)))]}
    with Workers(1) as workers, pytest.raises(SemiSupervisedError) as caught:
        check_images(str(tmp_path), cases, needs(ending=".nii"), workers)
    first, second = str(caught.value).splitlines()[1:-1]
    assert first.startswith("  - a: a_0000.nii is damaged: ") and "9999" in first
    assert second.startswith("  - b: fewer than 2 voxels")
    assert "9999" not in capfd.readouterr().err


def test_whatever_goes_wrong_is_a_problem_of_the_case(tmp_path, monkeypatch):
    def fail(reader, files):
        raise KeyError("one")

    monkeypatch.setattr(SimpleITKIO, "read_images", fail)
    (problem,) = problems_of([write(tmp_path, "a_0000.nrrd", volume())], needs(ending=".nrrd"))
    assert problem == "a_0000.nrrd cannot be read: KeyError: 'one'"


def test_surplus_channel(tmp_path):
    io.imsave(tmp_path / "a_0000.png", volume((20, 30, 4), np.uint8), check_contrast=False)
    wanted = needs("NaturalImage2DIO", channels=3, ending=".png", **FLAT)
    (problem,) = problems_of([str(tmp_path / "a_0000.png")], wanted)
    assert problem == "wrong number of channels: 4 in 1 file(s), needed 3 (T1, T2, T3)"


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".gipl"])
def test_truncated(tmp_path, ending, capfd):
    whole = Path(write(tmp_path, f"whole{ending}", volume())).read_bytes()
    file = tmp_path / f"a_0000{ending}"
    file.write_bytes(whole[: len(whole) * 2 // 3])
    (problem,) = problems_of([str(file)], needs(ending=ending))
    assert problem.startswith(f"a_0000{ending} ")
    assert capfd.readouterr() == ("", ""), "what readers print must not reach the terminal"


def test_no_image_at_all(tmp_path):
    for ending, reader in ((".nii.gz", "SimpleITKIO"), (".png", "NaturalImage2DIO"), (".tif", "Tiff3DIO")):
        file = tmp_path / f"a_0000{ending}"
        file.write_bytes(b"not an image")
        (problem,) = problems_of([str(file)], needs(reader, ending=ending))
        assert problem.startswith(f"a_0000{ending} cannot be read: ") and "\n" not in problem


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".gipl"])
def test_values_that_are_no_numbers(tmp_path, ending, value):
    bad = volume()
    bad[1, 2, 3] = bad[0, 0, 0] = value
    files = [write(tmp_path, f"a_0000{ending}", volume()), write(tmp_path, f"a_0001{ending}", bad)]
    assert problems_of(files, needs(channels=2, ending=ending)) == (f"a_0001{ending} has 2 NaN or infinite voxels",)


def test_nan_in_channels_of_one_file(tmp_path):
    bad = volume((2, 8, 9, 10))
    bad[1, 2, 3] = np.nan
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(bad, isVector=False), str(tmp_path / "a_0000.nrrd"))
    (problem,) = problems_of([str(tmp_path / "a_0000.nrrd")], needs(channels=2, ending=".nrrd"))
    assert problem == "channel 1 has 10 NaN or infinite voxels"


def test_channels_that_differ(tmp_path):
    first = write(tmp_path, "a_0000.nii.gz", volume())
    other = write(tmp_path, "a_0001.nii.gz", volume((8, 9, 11)))
    spaced = write(tmp_path, "b_0001.nii.gz", volume(), (3.0, 1.0, 0.6))
    (problem,) = problems_of([first, other], needs(channels=2))
    assert "differ in shape or spacing" in problem and "8 x 9 x 11 voxels" in problem
    (problem,) = problems_of([first, spaced], needs(channels=2))
    assert "differ in shape or spacing" in problem and "3 x 1 x 0.6 mm" in problem


def test_one_unreadable_channel_is_named(tmp_path):
    first = write(tmp_path, "a_0000.nrrd", volume())
    (tmp_path / "a_0001.nrrd").write_bytes(b"nonsense")
    (problem,) = problems_of([first, str(tmp_path / "a_0001.nrrd")], needs(channels=2, ending=".nrrd"))
    assert problem.startswith("a_0001.nrrd cannot be read: ")


def test_nothing_left_after_resampling(tmp_path):
    file = write(tmp_path, "a_0000.nii.gz", volume((2, 9, 10)), (0.1, 1.0, 1.0))
    (problem,) = problems_of([file], needs())
    assert "2 x 9 x 10 voxels of 0.1 x 1 x 1 mm become 0 x 9 x 10 voxels at the spacing of 3d_fullres" in problem


def test_transposed_plans(tmp_path):
    file = write(tmp_path, "a_0000.nii.gz", volume((9, 10, 2)), (1.0, 1.0, 0.1))
    wanted = needs(transpose=(2, 0, 1), spacings={"3d_fullres": (0.1, 1.0, 1.0)})
    assert problems_of([file], wanted) == ()


@pytest.mark.parametrize("spacing", [[0, 1, 1], [-1, 1, 1], [float("nan"), 1, 1]])
def test_spacing_must_be_positive(tmp_path, spacing):
    tifffile.imwrite(tmp_path / "a_0000.tif", volume())
    (tmp_path / "a.json").write_text(json.dumps({"spacing": spacing}))
    (problem,) = problems_of([str(tmp_path / "a_0000.tif")], needs("Tiff3DIO", ending=".tif"))
    assert "must be positive" in problem


def test_constant_image_is_remarked(tmp_path):
    report = inspect_case("a", [write(tmp_path, "a_0000.nii.gz", np.zeros((4, 5, 6), np.float32))], needs())
    assert report.problems == () and report.shape == (4, 5, 6)
    assert report.remarks == ("channel 0 has the same value everywhere",)


def test_shape_after_cropping():
    images = np.zeros((2, 6, 7, 8))
    images[0, 2, 3, 4] = images[1, 4, 3, 1] = 1
    assert nonzero_shape(images) == (3, 1, 4)


def test_every_problem_in_one_error_and_in_order(tmp_path):
    bad = volume()
    bad[0] = np.nan
    cases = {
        "c": [write(tmp_path, "c_0000.nii.gz", bad)],
        "a": [write(tmp_path, "a_0000.nii.gz", volume())],
        "b": [write(tmp_path, "b_0000.nii.gz", volume((1, 9, 10)))],
    }
    with Workers(1) as workers, pytest.raises(SemiSupervisedError) as caught:
        check_images(str(tmp_path), cases, needs(), workers, ["x.png: wrong file ending"])
    lines = str(caught.value).splitlines()
    assert str(tmp_path) in lines[0] and "nothing was preprocessed" in lines[0]
    assert [line.split(":")[0] for line in lines[1:-1]] == ["  - x.png", "  - c", "  - b"]


FINGERPRINT = {"spacings": [[3, 1, 1], [4, 1, 1]], "shapes_after_crop": [[10, 100, 100], [12, 90, 120]]}


@pytest.mark.parametrize(
    ("shape", "spacing", "found"),
    [
        ((10, 100, 100), (3.0, 1.0, 1.0), ""),
        ((10, 80, 130), (5.9, 0.9, 1.1), ""),
        ((10, 100, 100), (6.1, 1.0, 1.0), "spacing 6.1 x 1 x 1 mm (labelled cases 3-4 x 1 x 1)"),
        ((10, 100, 100), (1.9, 1.0, 1.0), "spacing 1.9 x 1 x 1 mm"),
        ((10, 50, 100), (3.0, 1.0, 1.0), "size 30 x 50 x 100 mm (labelled cases 30-48 x 90-100 x 100-120)"),
        ((100, 100, 10), (1.0, 1.0, 3.0), "spacing 1 x 1 x 3 mm"),
    ],
)
def test_unlike_the_labelled_cases(shape, spacing, found):
    lines = unusual_cases([CaseReport("a", shape=shape, spacing=spacing), CaseReport("b", ("bad",))], FINGERPRINT)
    assert lines == [] if not found else (len(lines) == 1 and lines[0].startswith(f"a: {found}"))


@pytest.mark.parametrize(
    ("placeholder", "pixel", "found"),
    [
        (999.0, 1.0, "a: size 20 x 100 pixels (labelled cases 100 x 100)"),  # PNG
        (499.5, 0.5, "a: size 10 x 50 mm (labelled cases 50 x 50)"),  # 2D NIfTI
    ],
)
def test_the_placeholder_of_2d_images_is_no_length(placeholder, pixel, found):
    spacing = (placeholder, pixel, pixel)
    fingerprint = {"spacings": [spacing] * 2, "shapes_after_crop": [[1, 100, 100]] * 2}
    assert unusual_cases([CaseReport("a", shape=(1, 20, 100), spacing=spacing)], fingerprint) == [found]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("0.5 0.5 2.0", "not readable JSON"),
        ('{"spacing": [2.0, 0.5, 0.5],}', "one too many"),
        ("\ufeff" + '{"spacing": [2, 0.5, 0.5]}', "byte-order mark"),
        ('{"voxel": [2, 0.5, 0.5]}', 'has no "spacing"'),
        ("[2.0, 0.5, 0.5]", "must hold a dictionary {...}, it holds a list [...]"),
        *[
            (json.dumps({"spacing": value}), "must be positive numbers for z, y and x")
            for value in ([2, 0.5], [2, 0, 0.5], ["2", "0.5", "0.5"], None, 3, [True, 1, 1], [10**400, 1, 1])
        ],
    ],
)
def test_the_spacing_file_is_named_and_not_the_image(tmp_path, content, words):
    tifffile.imwrite(tmp_path / "a b_0000.tif", volume())
    (tmp_path / "a b.json").write_text(content, encoding="utf-8")
    (problem,) = problems_of([str(tmp_path / "a b_0000.tif")], needs("Tiff3DIO", ending=".tif"))
    assert problem.startswith("a b_0000.tif cannot be used, because a b.json beside it ") and words in problem
    assert "\n" not in problem and ".py" not in problem


def test_the_spacing_file_is_named_where_its_unit_is_another(tmp_path):
    tifffile.imwrite(tmp_path / "a_0000.tif", volume())
    (tmp_path / "a.json").write_text(json.dumps({"spacing": [0.002, 0.0005, 0.0005]}))
    (problem,) = problems_of([str(tmp_path / "a_0000.tif")], needs("Tiff3DIO", ending=".tif"))
    assert "become 0 x 0 x 0 voxels" in problem and problem.endswith("(spacing: a.json)")


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO"])
def test_a_colour_volume_is_called_one(tmp_path, reader):
    image = SimpleITK.GetImageFromArray(volume((8, 9, 10, 3), np.uint8), isVector=True)
    SimpleITK.WriteImage(image, str(tmp_path / "a_0000.nii.gz"))
    (problem,) = problems_of([str(tmp_path / "a_0000.nii.gz")], needs(reader))
    assert problem.startswith("a_0000.nii.gz has 3 values per voxel (a colour or vector image)")


def test_an_animation_is_called_one(tmp_path):
    frames = [Image.fromarray(volume((20, 30), np.uint8) + shift) for shift in range(3)]
    frames[0].save(tmp_path / "a_0000.png", save_all=True, append_images=frames[1:])
    wanted = needs("NaturalImage2DIO", ending=".png", **FLAT)
    (problem,) = problems_of([str(tmp_path / "a_0000.png")], wanted)
    assert problem == "a_0000.png holds 3 frames or pages, a 2D image has a single one"
