"""Keeps the output of readers, C++ libraries included, away from the terminal, and its text for a message."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass

LONGEST = 300  # characters of somebody else's message that we repeat


@dataclass
class Captured:
    """What was printed; filled when the block ends."""

    text: str = ""


@contextmanager
def captured_output() -> Iterator[Captured]:
    """Collect what the block prints through Python or through the file descriptors 1 and 2. Not for threads."""
    captured = Captured()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
        sys.stdout.flush()
        sys.stderr.flush()
        originals = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
        try:
            for descriptor in originals:
                os.dup2(file.fileno(), descriptor)
            with redirect_stdout(file), redirect_stderr(file):
                yield captured
        finally:
            file.flush()
            for descriptor, original in originals.items():
                os.dup2(original, descriptor)
                os.close(original)
            file.seek(0)
            captured.text = file.read()


def one_line(text: str) -> str:
    """A foreign message as one line without the C++ source locations that SimpleITK puts first."""
    lines = [line.strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not line.startswith("Exception thrown in SimpleITK")]
    line = re.sub(r"\s+", " ", " ".join(kept))
    return line if len(line) <= LONGEST else line[:LONGEST] + " ..."


def describe_failure(error: BaseException, printed: str = "", place: bool = False) -> str:
    """What an exception says; nnU-Net's readers print their reason and raise an empty one.

    Args:
        error: the exception.
        printed: what was printed before it was raised.
        place: name the line of code, too: for what is a fault of the program rather than of a file.
    """
    text = one_line(str(error)) or one_line(printed)
    if text and isinstance(error, (RuntimeError, OSError, AssertionError)):
        return text
    if text and not place:
        return f"{type(error).__name__}: {text}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(frame.filename)}, line {frame.lineno}"
    return f"{type(error).__name__} in {where}: {text}".rstrip(": ")
