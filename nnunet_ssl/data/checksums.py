"""Checksums that readers leave unread: of compressed MetaImage (.mha, .mhd), NRRD (.nrrd, .nhdr) and PNG.

MetaImage holds a zlib stream that ends with Adler-32 (https://itk.org/Wiki/ITK/MetaIO/Documentation), NRRD gzip or
bzip2 with CRC-32 (https://teem.sourceforge.net/nrrd/format.html), PNG chunks with CRC-32 each, which Pillow does not
compare for voxels (https://www.w3.org/TR/png/#5Chunk-layout). Adler-32 is the weakest: of damage to few small values
it misses some.
"""

from __future__ import annotations

import bz2
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from nnunet_ssl.system.failures import raise_failure

CHUNK = 1 << 20
LONGEST_HEADER = 10_000  # lines
PNG = b"\x89PNG\r\n\x1a\n"
ZLIB_OR_GZIP, GZIP = 32 + zlib.MAX_WBITS, 16 + zlib.MAX_WBITS
DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "zlib": lambda: zlib.decompressobj(ZLIB_OR_GZIP),
    "gzip": lambda: zlib.decompressobj(GZIP),
    "bzip2": bz2.BZ2Decompressor,
}
MEMBERS = {"gzip": b"\x1f\x8b", "bzip2": b"BZh"}  # these files may be several that were joined


@dataclass(frozen=True)
class VoxelData:
    """Where a header says that the voxels are.

    Attributes:
        compression: a key of DECOMPRESSORS, or "" for none.
        files: files beside the header; empty: behind the header in the same file.
        offset: bytes of the header, if the voxels are behind it.
        skipped_lines: before the compressed data.
    """

    compression: str
    files: list[str] = field(default_factory=list)
    offset: int = 0
    skipped_lines: int = 0


def metaimage_damage(path: str, needed: int) -> str:
    """What is wrong with the compressed voxels, to be read after the file's name; empty: nothing, or not compressed.

    Args:
        path: of the header.
        needed: bytes of all voxels.
    """
    return _damage(path, _metaimage(path), needed)


def nrrd_damage(path: str, needed: int) -> str:
    """Like :func:`metaimage_damage`."""
    return _damage(path, _nrrd(path), needed)


def png_damage(path: str) -> str:
    """What is wrong with the chunks that the pixels depend on, to be read after the file's name; empty: nothing.

    What is no PNG at all is left to its reader.
    """
    with open(path, "rb") as file:
        if file.read(len(PNG)) != PNG:
            return ""
        while len(head := file.read(8)) == 8:
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            checksum, left = zlib.crc32(kind), length
            while left and (part := file.read(min(left, CHUNK))):
                checksum, left = zlib.crc32(part, checksum), left - len(part)
            if left or len(stored := file.read(4)) < 4:
                break
            name = kind.decode("latin-1")
            if name.isalpha() and not name[0].isupper():
                continue  # ancillary: a comment, a date
            if checksum != int.from_bytes(stored, "big"):
                return f"is damaged: the checksum of its part {name!r} does not fit"
            if kind == b"IEND":
                return ""
    return "is truncated: its last part is missing"


def _metaimage(path: str) -> VoxelData:
    fields: dict[str, str] = {}
    with open(path, "rb") as file:
        for line in _lines(file):
            name, _, value = line.partition("=")
            fields[name.strip()] = value.strip()
            if name.strip() == "ElementDataFile":
                break
        compression = "zlib" if fields.get("CompressedData", "").lower().startswith(("t", "1")) else ""
        if fields.get("HeaderSize", "0") != "0":
            compression = ""  # a foreign header before the voxels is left to the reader
        place = fields.get("ElementDataFile", "LOCAL")
        if place.upper().startswith("LIST"):
            return VoxelData(compression, [line for line in map(str.strip, _lines(file)) if line])
        if place.upper() == "LOCAL":
            return VoxelData(compression, offset=file.tell())
    return VoxelData(compression if "%" not in place else "", [place])  # a pattern of names is left to the reader


def _nrrd(path: str) -> VoxelData:
    fields: dict[str, str] = {}
    with open(path, "rb") as file:
        for line in _lines(file):
            if not line.strip():
                break
            name, separator, value = line.partition(": ")
            if separator and not line.startswith("#"):
                fields[name.strip().lower().replace(" ", "")] = value.strip()
            if name.strip().lower().replace(" ", "") == "datafile" and value.strip().upper().startswith("LIST"):
                break
        encoding = {"gz": "gzip", "bz2": "bzip2"}.get(name := fields.get("encoding", "").lower(), name)
        compression = encoding if encoding in DECOMPRESSORS else ""
        place, skipped = fields.get("datafile", ""), int(fields.get("lineskip", "0"))
        if place.upper().startswith("LIST"):
            return VoxelData(compression, [line for line in map(str.strip, _lines(file)) if line], 0, skipped)
        if not place:
            return VoxelData(compression, [], file.tell(), skipped)
    return VoxelData(compression if "%" not in place else "", [place], 0, skipped)


def _lines(file: IO[bytes]) -> Iterator[str]:
    for _ in range(LONGEST_HEADER):
        if not (line := file.readline(CHUNK)):
            return
        yield line.decode("latin-1").rstrip("\r\n")


def _damage(path: str, data: VoxelData, needed: int) -> str:
    if not data.compression:
        return ""
    total = 0
    for name in data.files or [path]:
        beside = os.path.join(os.path.dirname(path), name)
        where = f", {name}," if data.files else ""
        try:
            with open(beside, "rb") as file:
                file.seek(data.offset)
                for _ in range(data.skipped_lines):
                    file.readline()
                total += _decompressed_size(file, data.compression)
        except EOFError:
            return f"is truncated: the compressed data{where} end too early"
        except (zlib.error, OSError) as error:
            raise_failure(error)
            reason = getattr(error, "strerror", None) or error
            return f"is damaged: the compressed data{where} cannot be read ({reason})"
    return f"is truncated: {total} bytes of {needed}" if total < needed else ""


def _decompressed_size(file: IO[bytes], compression: str) -> int:
    """Bytes after decompression, in pieces, so that little memory is taken. Whatever follows the data is ignored.

    Raises:
        EOFError, zlib.error, OSError: truncated, or damaged, the checksum at the end included.
    """
    new, begins = DECOMPRESSORS[compression], MEMBERS.get(compression)
    stream, total, pending = new(), 0, file.read(CHUNK)
    while True:
        total += len(stream.decompress(pending, CHUNK))
        if stream.eof:
            pending = stream.unused_data or file.read(CHUNK)
            if begins is None or not pending.startswith(begins):
                return total
            stream = new()
            continue
        pending = getattr(stream, "unconsumed_tail", b"")  # bzip2 keeps it to itself
        if not pending and getattr(stream, "needs_input", True) and not (pending := file.read(CHUNK)):
            total += len(stream.flush()) if hasattr(stream, "flush") else 0
            if not stream.eof:
                raise EOFError
            return total
