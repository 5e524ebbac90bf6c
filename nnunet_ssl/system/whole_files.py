"""Files that appear whole or not at all, under a temporary name of their own until then."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from nnunet_ssl.system.failures import system_errors

TEMPORARY = re.compile(r".+\.[0-9a-f]{12}\.tmp")  # a name that `whole_file` made


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yields a temporary name in the same folder; what is written there takes the place of ``path`` at the end.

    A reader sees the old or the new file, whole. No two processes, on whatever computer, get the same name. It is
    removed where the block fails.

    Raises:
        SystemFailure: no space left, no right to write and the like.
    """
    target = os.fspath(path)
    temporary = f"{target}.{uuid.uuid4().hex[:12]}.tmp"
    try:
        with system_errors(target):
            yield temporary
            with open(temporary, "rb+") as file:
                # a power failure would leave the new name with nothing behind it; and network file systems tell only
                # now that there is no space
                os.fsync(file.fileno())
            os.replace(temporary, target)
    finally:
        with suppress(OSError):
            os.remove(temporary)


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write the content by :func:`whole_file`."""
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        file.write(content)


def remove_unfinished(folder: str) -> None:
    """Remove what killed processes left under temporary names. Only where nobody else can be writing."""
    for name in os.listdir(folder):
        if TEMPORARY.fullmatch(name):
            with suppress(OSError):
                os.remove(os.path.join(folder, name))
