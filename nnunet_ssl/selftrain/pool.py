"""The images without label, linked into one folder under nnU-Net's names and without any label beside them."""

from __future__ import annotations

import filecmp
import gzip
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunet_ssl.data.image_files import spacing_file
from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.system.hashes import BLOCK

UNFINISHED = ".tmp"
GZIP_TRAILER = 8  # bytes: CRC-32 and size of what was compressed (RFC 1952)


def link_pool(run: Run) -> None:
    """Make OUT/pool anew where it is not what it should be: a link per image, {case}_{channel}{ending}."""
    wanted = links(run)
    folder = run.pool_folder
    os.makedirs(folder, exist_ok=True)
    for name in set(os.listdir(folder)) - set(wanted):
        if not name.endswith(UNFINISHED):  # of another prediction that begins at the same time
            with suppress(FileNotFoundError):
                os.remove(os.path.join(folder, name))
    for name, target in wanted.items():
        link = os.path.join(folder, name)
        if os.path.islink(link) and os.readlink(link) == target:
            continue
        temporary = f"{link}.{uuid.uuid4().hex[:12]}{UNFINISHED}"
        os.symlink(target, temporary)
        os.replace(temporary, link)


def links(run: Run) -> dict[str, str]:
    """Name in OUT/pool -> absolute path of the file."""
    tiff = issubclass(recursive_find_reader_writer_by_name(run.plans["image_reader_writer"]), Tiff3DIO)
    result = {}
    for case, files in run.pool.items():
        for channel, file in enumerate(files):
            result[f"{case}_{channel:04d}{run.ending}"] = os.path.abspath(file)
        if tiff and os.path.isfile(beside := spacing_file(files[0])):
            result[f"{case}.json"] = os.path.abspath(beside)
    return result


def same_images(pool: Mapping[str, Sequence[str]], others: Iterable[str]) -> dict[str, str]:
    """Case of the pool -> a file among the others with the very same content as its first image."""
    alike: dict[int | bytes, list[str]] = {}
    for other in others:
        if os.path.isfile(other):
            alike.setdefault(_mark(other), []).append(other)
    found = {}
    for case, files in pool.items():
        for other in alike.get(_mark(files[0]), []):
            if _same(files[0], other):
                found[case] = other
                break
    return found


def _mark(path: str) -> int | bytes:
    """What files of equal content have in common: their size; of gzip, which holds a name and a time, its last bytes.

    These are the checksum and the size of what was compressed.
    """
    size = os.path.getsize(path)
    if not path.endswith(".gz"):
        return size
    with open(path, "rb") as file:
        file.seek(max(0, size - GZIP_TRAILER))
        return file.read()


def _same(first: str, second: str) -> bool:
    if filecmp.cmp(first, second, shallow=False):
        return True
    if not first.endswith(".gz"):
        return False
    with gzip.open(first) as one, gzip.open(second) as other:
        while (block := one.read(BLOCK)) == other.read(BLOCK):
            if not block:
                return True
    return False
