"""Damage that readers overlook.

SimpleITK fills the missing end of a truncated .nii.gz, .nii or .gipl with zeros and puts zeros in place of NaN in NIfTI
files. It does not compare the checksums of compressed .mha, and in .nrrd overlooks what is still decompressible, as
Pillow does at the end of a PNG. A multi-page TIFF that was cut off reads as a shorter volume.
"""

from __future__ import annotations

import gzip
import io
import logging
import math
import os
import zlib
from typing import IO, Any, cast

import nibabel
import numpy as np
import SimpleITK
import tifffile
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from nnunet_ssl.data.checksums import metaimage_damage, nrrd_damage, png_damage
from nnunet_ssl.data.quiet import Captured, captured_output, describe_failure
from nnunet_ssl.system.failures import raise_failure

CHUNK = 1 << 20
GIPL_HEADER = 256  # bytes


def find_damage(path: str) -> str:
    """What is wrong with the file, to be read after its name; empty if nothing was found.

    Costs one pass over a compressed file, another one over NIfTI of floating point; of other files the header is read.
    Compressed TIFF is left to its reader, which does compare checksums where there are any.
    Keeps to itself what nibabel and tifffile print.

    Raises:
        SystemFailure: the system does not let the file be read, for a reason that lies outside the file.
    """
    if not has_unicode_name(path):
        return "has a name, or lies in a folder, that is not UTF-8; rename it"
    printed = Captured()
    try:
        with captured_output() as printed:
            return _damage(path)
    except Exception as error:  # a damaged header can trip its parser in any way
        raise_failure(error)
        if isinstance(error, OSError):
            return f"cannot be opened: {error.strerror or error}"
        return f"is damaged: {describe_failure(error, printed.text)}"


def has_unicode_name(path: str) -> bool:
    """Whether the path is UTF-8; at another one SimpleITK ends the whole process."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _damage(path: str) -> str:
    with open(path, "rb"):
        pass  # the system says why it does not open a file, readers of other formats do not
    if os.path.getsize(path) == 0:
        return "is empty (0 bytes)"
    lower = path.lower()
    if lower.endswith((".nii.gz", ".nii")):
        return _nifti_damage(path) or _nifti_nan(path)
    if lower.endswith(".gipl"):
        voxels = _voxel_bytes(path)
        return _too_short(os.path.getsize(path), GIPL_HEADER + voxels) if voxels else ""
    if lower.endswith((".mha", ".mhd")):
        return metaimage_damage(path, _voxel_bytes(path))
    if lower.endswith(".png"):
        return png_damage(path)
    if lower.endswith((".nrrd", ".nhdr")):
        return nrrd_damage(path, _voxel_bytes(path))
    if lower.endswith((".tif", ".tiff")):
        return _tiff_damage(path)
    return ""


def _too_short(present: int, needed: int) -> str:
    return f"is truncated: {present} bytes of {needed}" if present < needed else ""


def _nifti_damage(path: str) -> str:
    with open(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    try:
        # GzipFile is a readable binary stream; its class says so to type checkers in newer Pythons only
        with cast("IO[bytes]", gzip.open(path)) if compressed else open(path, "rb") as stream:
            start = stream.read(Nifti2Header.template_dtype.itemsize)
            if not compressed:
                return _too_short(os.path.getsize(path), _nifti_size(start))
            present = len(start)
            while chunk := stream.read(CHUNK):  # up to the end, where gzip compares its checksum
                present += len(chunk)
    except EOFError:
        return "is truncated: the compressed data end too early"
    except (gzip.BadGzipFile, zlib.error) as error:
        return f"is damaged: {error}"
    return _too_short(present, _nifti_size(start))


def _nifti_size(start: bytes) -> int:
    """Bytes that header and voxels take, or 0 where the header is not NIfTI (then the reader decides)."""
    for header_class, magic in ((Nifti1Header, slice(344, 348)), (Nifti2Header, slice(4, 8))):
        if start[magic][:2] == b"n+" and len(start) >= header_class.template_dtype.itemsize:
            header = header_class.from_fileobj(io.BytesIO(start), check=False)
            voxels = math.prod(int(n) for n in header.get_data_shape())
            return int(header.get_data_offset()) + voxels * int(header.get_data_dtype().itemsize)
    return 0


def _nifti_nan(path: str) -> str:
    try:
        image: Any = nibabel.load(path)
    except nibabel.filebasedimages.ImageFileError:
        return ""  # no NIfTI to nibabel: the reader decides
    if image.dataobj.dtype.kind not in "fc":
        return ""
    values = image.dataobj.get_unscaled()
    count = values.size - int(np.count_nonzero(np.isfinite(values)))
    return f"has {count} NaN or infinite voxels" if count else ""


def _voxel_bytes(path: str) -> int:
    """By the header as SimpleITK reads it; 0 if it does not (then the reader says so)."""
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return 0
    voxel = SimpleITK.GetArrayViewFromImage(SimpleITK.Image([1, 1], reader.GetPixelID())).dtype.itemsize
    return math.prod(reader.GetSize()) * reader.GetNumberOfComponents() * voxel


class _PageErrors(logging.Handler):
    """Collects what tifffile reports of a broken chain of pages; other oddities of tags are harmless."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith("<tifffile.TiffPages"):
            self.messages.append(message)


def _tiff_damage(path: str) -> str:
    logger, errors = logging.getLogger("tifffile"), _PageErrors()
    propagate = logger.propagate
    logger.addHandler(errors)
    logger.propagate = False
    try:
        with tifffile.TiffFile(path) as file:
            len(file.pages)  # walks the chain to its end
    except tifffile.TiffFileError:
        return ""  # not readable at all: the reader says so
    finally:
        logger.removeHandler(errors)
        logger.propagate = propagate
    return f"is truncated or damaged: {errors.messages[0]}" if errors.messages else ""
