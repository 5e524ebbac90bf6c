"""The images without label, linked into one folder under nnU-Net's names and without any label beside them."""

from __future__ import annotations

import filecmp
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunet_ssl.data.image_files import spacing_file
from nnunet_ssl.selftrain.run import Run

UNFINISHED = ".tmp"


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
    by_size: dict[int, list[str]] = {}
    for other in others:
        if os.path.isfile(other):
            by_size.setdefault(os.path.getsize(other), []).append(other)
    found = {}
    for case, files in pool.items():
        for other in by_size.get(os.path.getsize(files[0]), []):
            if filecmp.cmp(files[0], other, shallow=False):
                found[case] = other
                break
    return found
