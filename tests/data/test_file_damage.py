import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from skimage import io

from nnunet_ssl.data.file_damage import find_damage

VOLUME = np.random.default_rng(0).integers(0, 1000, (9, 8, 7)).astype(np.int16)


def write(path: Path) -> bytes:
    if path.name.startswith("pages"):
        tifffile.imwrite(path, VOLUME, photometric="minisblack", metadata=None)
    elif path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, VOLUME)
    elif path.suffix in (".png", ".bmp"):
        io.imsave(path, VOLUME[0].astype(np.uint8), check_contrast=False)
    elif path.name.startswith("nifti2"):
        nibabel.save(nibabel.Nifti2Image(VOLUME, np.eye(4)), path)
    else:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOLUME), str(path))
    return path.read_bytes()


ALL = [
    *("x.nii.gz", "x.nii", "nifti2.nii.gz", "nifti2.nii", "x.gipl", "x.nrrd", "x.mha"),
    *("x.tif", "x.tiff", "pages.tif", "x.png", "x.bmp"),
]


@pytest.mark.parametrize("name", ALL)
def test_whole_files_pass(tmp_path, name):
    write(tmp_path / name)
    assert find_damage(str(tmp_path / name)) == ""


@pytest.mark.parametrize("name", [n for n in ALL if n.endswith((".nii.gz", ".nii", ".gipl"))])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(kept=st.floats(0, 1, exclude_max=True))
def test_every_truncation_of_what_simpleitk_fills_with_zeros(tmp_path, name, kept):
    whole, path = write(tmp_path / f"whole_{name}"), tmp_path / name
    path.write_bytes(whole[: int(kept * len(whole))])
    readable = True
    try:
        SimpleITK.ReadImage(str(path))
    except RuntimeError:
        readable = False  # the reader's own message does
    assert find_damage(str(path)) or not readable


@pytest.mark.parametrize("kept", [0.5, 0.9, 0.97])
def test_tiff_that_lost_its_last_pages(tmp_path, kept):
    path = tmp_path / "pages.tif"
    whole = write(path)
    path.write_bytes(whole[: int(kept * len(whole))])
    assert "truncated" in find_damage(str(path))


def test_gzip_checksum(tmp_path):
    path = tmp_path / "x.nii.gz"
    whole = bytearray(write(path))
    whole[-6] ^= 1
    path.write_bytes(bytes(whole))
    assert "damaged" in find_damage(str(path))


def test_truncated_before_it_was_compressed(tmp_path):
    path = tmp_path / "x.nii.gz"
    whole = gzip.decompress(write(path))
    path.write_bytes(gzip.compress(whole[:-100]))
    assert "is truncated" in find_damage(str(path))


def test_uncompressed_nifti_named_gz_is_left_to_the_reader(tmp_path):
    plain = write(tmp_path / "plain.nii")
    (tmp_path / "x.nii.gz").write_bytes(plain)
    assert find_damage(str(tmp_path / "x.nii.gz")) == ""


def test_empty_absent_and_broken_link(tmp_path):
    (tmp_path / "x.png").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    assert "empty" in find_damage(str(tmp_path / "x.png"))
    assert "No such file" in find_damage(str(tmp_path / "link.png"))


def test_text_named_nifti_is_left_to_the_reader(tmp_path):
    (tmp_path / "x.nii").write_bytes(b"not an image")
    assert find_damage(str(tmp_path / "x.nii")) == ""


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize(
    ("offset", "form", "value", "word"),
    [
        (70, "<h", 9999, "9999"),  # datatype
        (108, "<f", 100.0, "vox offset 100 too low"),
        (108, "<f", float("nan"), "NaN"),
        (40, "<h", 99, "KeyError"),  # number of dimensions
    ],
)
def test_damaged_header_of_nifti(tmp_path, capfd, name, offset, form, value, word):
    path = tmp_path / name
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOLUME.astype(np.float32)), str(path))
    whole = bytearray(path.read_bytes() if name == "x.nii" else gzip.decompress(path.read_bytes()))
    struct.pack_into(form, whole, offset, value)
    path.write_bytes(bytes(whole) if name == "x.nii" else gzip.compress(bytes(whole)))
    damage = find_damage(str(path))
    assert damage.startswith("is damaged: ") and word in damage and "\n" not in damage
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("value", [0, 2])
def test_damaged_tag_of_tiff(tmp_path, value):
    path = tmp_path / "x.tif"
    whole = bytearray(write(path))
    (directory,) = struct.unpack_from("<I", whole, 4)
    # the second tag, ImageWidth: no value at all, or text instead of a number
    whole[directory + 2 + 12 + (4 if value == 0 else 2)] = value
    path.write_bytes(bytes(whole))
    assert find_damage(str(path)).startswith("is damaged: TypeError")
