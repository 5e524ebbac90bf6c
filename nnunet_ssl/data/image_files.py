"""What else keeps a file from being read as one image: frames, colours, and the spacing beside a TIFF."""

from __future__ import annotations

import os
import reprlib
import sys
from typing import Any

import SimpleITK
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from PIL import Image

from nnunet_ssl.data.quiet import captured_output
from nnunet_ssl.data.text_files import read_json
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.system.failures import raise_failure

CHANNEL = "_0000"


def file_problem(path: str, reader: BaseReaderWriter) -> str:
    """Why the file does not hold one image with one value per voxel, to be read after its name; empty if it does.

    nnU-Net's readers take frames and colours for slices and channels, or fail on them with a word about something else.
    """
    if isinstance(reader, Tiff3DIO):
        return ""  # pages are slices
    if isinstance(reader, NaturalImage2DIO):
        frames = _frames(path)
        return f"holds {frames} frames or pages, a 2D image has a single one" if frames > 1 else ""
    values = _values_per_voxel(path)
    if values == 1:
        return ""
    return f"has {values} values per voxel (a colour or vector image); save each of them in a file of its own"


def _frames(path: str) -> int:
    try:
        with Image.open(path) as image:
            return int(getattr(image, "n_frames", 1))
    except Exception:  # not readable: the reader says so
        return 1


def _values_per_voxel(path: str) -> int:
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(path)
    try:
        with captured_output():
            reader.ReadImageInformation()
    except RuntimeError:  # not readable: the reader says so
        return 1
    return int(reader.GetNumberOfComponents())


def spacing_file(path: str, label: bool = False) -> str:
    """Where nnU-Net looks for the spacing of a TIFF: beside it, without the number of the channel."""
    stem = os.path.splitext(path)[0]
    return (stem if label else stem[: -len(CHANNEL)]) + ".json"


def spacing_file_problem(path: str, reader: BaseReaderWriter, label: bool = False) -> str:
    """Why the spacing beside a TIFF cannot be used, to be read after the name of the TIFF; empty if it can.

    Args:
        path: of the TIFF.
        reader: of the dataset; the others know no such file.
        label: the name of the TIFF has no number of a channel.
    """
    beside = spacing_file(path, label)
    if not isinstance(reader, Tiff3DIO) or not os.path.lexists(beside):
        return ""
    try:
        content = read_json(beside, dict, nnunet_reads_it=True)
        problem = _spacing_problem(content["spacing"]) if "spacing" in content else 'has no "spacing"'
    except SemiSupervisedError as error:
        raise_failure(error)
        problem = str(error).splitlines()[0].removeprefix(f"{beside} ")
    return f"cannot be used, because {os.path.basename(beside)} beside it {problem}" if problem else ""


def _spacing_problem(spacing: Any) -> str:
    numbers = spacing if isinstance(spacing, list) else []
    good = [n for n in numbers if isinstance(n, (int, float)) and not isinstance(n, bool)]
    if len(numbers) == len(good) == 3 and all(0 < number <= sys.float_info.max for number in good):
        return ""
    found = reprlib.repr(spacing)
    return f'has the "spacing" {found}; it must be positive numbers for z, y and x, [2.0, 0.5, 0.5] for instance'
