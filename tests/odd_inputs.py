"""What people hand to commands by mistake: files of every wrong kind, and odd values of options."""

from __future__ import annotations

import os
import shutil
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from nnunet_ssl.cli import main

TEXT = '["M\u00fcller", "case_1"]\r\n'
CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \r\n\t\n",
    "zeros": bytes(600),
    "PNG": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff",
    "gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x4b\x4c",
    "NIfTI cut off": b"\x5c\x01\0\0" + bytes(340) + b"n+1\0",
    "noise": bytes(range(256)) * 4,
    "UTF-8 with mark": TEXT.encode("utf-8-sig"),
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-16 without mark": TEXT.encode("utf-16-le"),
    "UTF-16 cut off": TEXT.encode("utf-16")[:-1],
    "UTF-32": TEXT.encode("utf-32"),
    "Latin-1": TEXT.encode("latin-1"),
    "lone surrogate": b'["\\ud800"]',
    "list": b'["case_0", "case_1"]',
    "comma too many": b'{"a": 1,}',
    "single quotes": b"{'a': 1}",
    "cut off": b'{"datasets": [{"dataset": 901, "spl',
    "two documents": b"{}\n---\n{}\n",
    "not a number": b"NaN",
    "infinity": b'{"spacing": [Infinity, 1e999, -1]}',
    "huge number": b"1" + b"0" * 400,
    "too many digits": b"9" * 5000,
    "true": b"true",
    "null": b"null",
    "text": b'"text"',
    "empty list": b"[]",
    "empty dictionary": b"{}",
    "list of lists": b"[[], [[]]]",
    "list of null": b"[null]",
    "list of numbers": b"[1, 2.5]",
    "list of dictionaries": b'[{}, {"train": 3, "val": null}]',
    "other kinds": b'{"": {}, "1": [], "labels": 3, "jobs": 4, "folds": {}, "splits": [], "configurations": 1}',
    "kinds within": b'{"configurations": {"2d": 1, "3d_fullres": null}, "labels": {"a": "b"}, "jobs": [1]}',
    "null everywhere": b'{"labels": null, "file_ending": null, "configurations": null, "jobs": null, "datasets": null}',
    "deep": b"[" * 20_000,
    "long line": b"a" * 50_000,
    "YAML with itself": b"&a {datasets: [*a]}",
    "YAML of dates": b"datasets: [2024-13-45]",
    "CSV with a quote": b'case,subject\n"a,b\nc,d',
    "CSV of several widths": b"a,b,c\n1\n1,2,3,4,5\n",
    "HTML": b"<!DOCTYPE html><html><body>404 \xc3\xa9</body></html>",
}
NO_FILES = ("folder", "folder with a file", "link to itself", "link to nothing")
FILES = (*CONTENTS, *NO_FILES)
VALUES = [
    *(
        "",
        " ",
        "a b",
        ".",
        "..",
        "/",
        "../x",
        "a/b",
        "a\\b",
        "*",
        "~",
        "$HOME",
        "%s",
        "{0}",
        "a\nb",
        "a__b",
        "a=b",
        "=",
    ),
    *("a:b=c", ":", "-5", "0", "1e400", "nan", "inf", "-inf", "0x10", "9" * 30, "9" * 5000, "true", "null"),
    *(
        "[]",
        "{}",
        "M\u00fcller",
        "\u738b",
        "\U0001f600",
        "caf\udce9",
        "n" * 300,
        "Dataset",
        "Dataset901",
        "Dataset901_",
        "901.0",
    ),
]


@contextmanager
def odd(path: Path, kind: str) -> Iterator[None]:
    """Put the odd thing in place of the file or folder, and everything back afterwards."""
    aside = path.with_name(f".{path.name}.aside")
    if os.path.lexists(path):
        path.rename(aside)
    try:
        _put(path, kind)
        yield
    finally:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif os.path.lexists(path):
            path.unlink()
        if os.path.lexists(aside):
            aside.rename(path)


def _put(path: Path, kind: str) -> None:
    if kind in CONTENTS:
        path.write_bytes(CONTENTS[kind])
    elif kind.startswith("link"):
        path.symlink_to(path if kind == "link to itself" else path.with_name("nowhere"))
    else:
        path.mkdir()
        if "file" in kind:
            (path / "some file.txt").touch()


def complaint(words: Sequence[str], capfd: pytest.CaptureFixture[str], named: str = "") -> str:
    """Run a command. Empty: it did its work, or ended with an exit code and words, which name the file."""
    try:
        code = main([*words])
    except SystemExit as end:
        code = end.code  # type: ignore[assignment]  # argparse gives a number
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} in {frame.filename}, line {frame.lineno}: {str(error)[:200]}"
    captured = capfd.readouterr()
    said = captured.err + captured.out
    if "Traceback" in said:
        return f"prints a traceback: {said[-300:]}"
    if code and not said.strip():
        return f"ends with {code} and says nothing"
    if code and named and named not in said and "no reference label" not in said:  # a list that names unknown cases
        return f"does not name {named}: {said[:400]}"
    return ""
