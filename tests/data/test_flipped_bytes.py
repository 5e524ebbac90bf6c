"""One flipped bit in compressed voxels is found, by `preprocess` in images and by `evaluate` in label files."""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from skimage import io

from nnunet_ssl.data.file_damage import find_damage
from nnunet_ssl.data.image_checks import Needs, inspect_case
from nnunet_ssl.evaluation.scoring.label_file import read_label_file

PLACES = 40
LABELS = np.random.default_rng(0).integers(0, 200, (8, 20, 30)).astype(np.uint8)


def written(folder: Path, kind: str) -> tuple[Path, Path, str]:
    """Path of the image as nnU-Net gets it, the file with the compressed voxels, and the reader's name."""
    path, image = folder / f"a_0000.{kind.split('_')[-1]}", SimpleITK.GetImageFromArray(LABELS)
    beside = {"mhd": "a_0000.zraw", "nhdr": "a_0000.raw.gz"}.get(kind)
    if kind == "png":
        io.imsave(path, LABELS[0], check_contrast=False)
        return path, path, "NaturalImage2DIO"
    if kind.endswith("tif"):
        tifffile.imwrite(path, LABELS, compression=kind.split("_")[0])
        return path, path, "Tiff3DIO"
    if kind == "bzip2_nrrd":
        path = folder / "a_0000.nrrd"
        header = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 30 20 8\nencoding: bzip2\n\n"
        path.write_bytes(header.encode() + bz2.compress(LABELS.tobytes()))
        return path, path, "SimpleITKIO"
    SimpleITK.WriteImage(image, str(path), True)
    return path, folder / beside if beside else path, "SimpleITKIO"


def compressed_part(kind: str, content: bytes) -> tuple[int, int]:
    """Where the compressed voxels and their checksum begin and end."""
    if kind in ("nii.gz", "nhdr"):
        return 10, len(content)
    if kind == "mhd":
        return 0, len(content)
    if kind == "png":
        start = content.index(b"IDAT")
        return start, start + 8 + int.from_bytes(content[start - 4 : start], "big")
    if kind.endswith("tif"):
        with tifffile.TiffFile(BytesIO(content)) as file:
            page = file.pages[0]
            return page.dataoffsets[0], page.dataoffsets[0] + page.databytecounts[0]
    if kind == "mha":
        return content.index(b"LOCAL\n") + 6, len(content)
    return content.index(b"\n\n") + 2 + (10 if kind == "nrrd" else 0), len(content)


def flips(kind: str, file: Path) -> Iterator[int]:
    """Flips one bit at 40 places in turn, the last one among the checksum, and puts it back."""
    whole = file.read_bytes()
    start, end = compressed_part(kind, whole)
    for place in np.linspace(start, end - 1, PLACES).astype(int):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        file.write_bytes(damaged)
        yield int(place)
    file.write_bytes(whole)


@pytest.mark.parametrize("kind", ["mha", "mhd", "nrrd", "nhdr", "nii.gz", "png", "zlib_tif"])
def test_every_flipped_bit_is_found(tmp_path, kind):
    path, file, name = written(tmp_path, kind)
    flat = {"slice_axis": 0, "spacings": {"2d": (1.0, 1.0)}} if kind == "png" else {}
    spacings = {"slice_axis": None, "spacings": {"3d_fullres": (1.0, 1.0, 1.0)}}
    needs = Needs(name, ("T1",), path.suffix, transpose=(0, 1, 2), **{**spacings, **flat})
    reader = recursive_find_reader_writer_by_name(name)()
    assert inspect_case("a", [str(path)], needs).problems == ()
    assert not isinstance(read_label_file(str(path), reader), str)
    for place in flips(kind, file):
        (problem,) = inspect_case("a", [str(path)], needs).problems
        assert problem.startswith(path.name) and "line" not in problem, f"{place}: {problem}"
        assert isinstance(read_label_file(str(path), reader), str), place


def test_flips_in_what_only_other_readers_read(tmp_path):
    path, file, _ = written(tmp_path, "bzip2_nrrd")
    assert find_damage(str(path)) == ""
    assert all("damaged" in find_damage(str(path)) or "truncated" in find_damage(str(path)) for _ in flips("", file))


def nrrd(path: Path, data: bytes, encoding: str = "gzip", further: str = "") -> str:
    header = (
        f"NRRD0004\n# a comment: none\ntype: uint8\ndimension: 3\nsizes: 30 20 8\nencoding: {encoding}\n{further}\n"
    )
    path.write_bytes(header.encode() + data)
    return str(path)


def test_forms_that_the_reader_accepts_pass(tmp_path):
    raw = LABELS.tobytes()
    for number, data in enumerate(
        [
            gzip.compress(raw[:1000]) + gzip.compress(raw[1000:]),  # members, as bgzip writes them
            gzip.compress(raw) + b"\0\0\0",
            gzip.compress(bytes(3 << 20)),  # more than needed, in several pieces
        ]
    ):
        assert find_damage(nrrd(tmp_path / f"{number}.nrrd", data)) == ""
    assert find_damage(nrrd(tmp_path / "raw.nrrd", raw, "raw")) == ""
    assert find_damage(nrrd(tmp_path / "skip.nrrd", b"one\ntwo\n" + gzip.compress(raw), "gz", "line skip: 2\n")) == ""
    (tmp_path / "slices.gz").write_bytes(gzip.compress(raw))
    assert find_damage(nrrd(tmp_path / "x.nhdr", b"", "gzip", "data file: slices.gz\n")) == ""


def test_truncated_and_missing_files(tmp_path):
    raw = LABELS.tobytes()
    assert "is truncated" in find_damage(nrrd(tmp_path / "a.nrrd", gzip.compress(raw)[:-20]))
    assert find_damage(nrrd(tmp_path / "b.nrrd", gzip.compress(raw[:-1]))) == "is truncated: 4799 bytes of 4800"
    header = "ObjectType = Image\nNDims = 3\nDimSize = 30 20 8\nElementType = MET_UCHAR\nCompressedData = True\n"
    (tmp_path / "c.mhd").write_text(header + "ElementDataFile = gone.zraw\n")
    assert "gone.zraw" in find_damage(str(tmp_path / "c.mhd"))
    (tmp_path / "d.mha").write_bytes(header.encode() + b"ElementDataFile = LOCAL\n" + zlib.compress(raw)[:-4])
    assert "is truncated" in find_damage(str(tmp_path / "d.mha"))
