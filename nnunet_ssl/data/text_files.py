"""Text, JSON and YAML files, which people edit and editors save in many ways. All of them are read here."""

from __future__ import annotations

import codecs
import json
import os
import shlex
from typing import Any

import yaml

from nnunet_ssl.errors import SemiSupervisedError, complain
from nnunet_ssl.system.failures import raise_failure

SAVE_AS = 'Save it as UTF-8 (in the editor: "Save as", encoding "UTF-8").'
GIVE = "Put the file there, or give the path of one that can be read."
PLAIN = "nnU-Net reads this file, too, and cannot do so; save it as UTF-8 without byte-order mark."
# the longer marks first: that of UTF-32 begins like that of UTF-16
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
KINDS = {dict: "a dictionary {...}", list: "a list [...]", str: "text", bool: "true or false", type(None): "null"}


def read_text(path: str | os.PathLike[str], nnunet_reads_it: bool = False) -> str:
    """Text in UTF-8, or in whatever encoding its byte-order mark tells.

    Args:
        path: of the file.
        nnunet_reads_it: refuse a byte-order mark, because nnU-Net would stumble over it later.

    Raises:
        SystemFailure: permission denied and the like, for which the file is not to blame.
        SemiSupervisedError: absent, not to be opened, in another encoding, or no text.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError as error:
        raise complain(f"{path} does not exist.", remedy=GIVE) from error
    except (OSError, ValueError) as error:  # the latter of a path with a zero byte
        raise_failure(error)
        reason = getattr(error, "strerror", None) or error
        raise complain(f"{path} cannot be read: {reason}.", remedy=GIVE) from error
    mark = next((mark for mark in MARKS if content.startswith(mark)), None)
    if mark is not None and nnunet_reads_it:
        raise complain(f"{path} starts with the byte-order mark of {MARKS[mark].removesuffix('-sig')}.", remedy=PLAIN)
    encoding = "utf-8" if mark is None else MARKS[mark]
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if b"\0" in content[:1000] and mark is None:
            raise _no_text(path) from error
        line = content.count(b"\n", 0, error.start) + 1
        what = f"byte 0x{content[error.start]:02x} in line {line}" if mark is None else f"{error.reason}, line {line}"
        raise complain(f"{path} is not text in {encoding.removesuffix('-sig')} ({what}).", remedy=SAVE_AS) from error
    if "\0" in text:
        raise _no_text(path)
    return text


def _no_text(path: str | os.PathLike[str]) -> SemiSupervisedError:
    return complain(f"{path} is not text, or UTF-16 without a byte-order mark: it has zero bytes.", remedy=SAVE_AS)


def read_json(
    path: str | os.PathLike[str], kind: type | None = None, nnunet_reads_it: bool = False, **options: Any
) -> Any:
    """Content of a JSON file.

    Args:
        path: of the file.
        kind: dict or list, if it has to be one.
        nnunet_reads_it: see :func:`read_text`.
        **options: of ``json.loads``.

    Raises:
        SemiSupervisedError: see :func:`read_text`; no JSON, or of another kind.
    """
    text = read_text(path, nnunet_reads_it)
    if not text.strip():
        raise _no_json(path, "it is empty")
    try:
        content = json.loads(text, **options)
    except RecursionError as error:
        raise _no_json(path, "too many brackets within each other") from error
    except json.JSONDecodeError as error:
        comma = "; the comma before it is one too many" if text[: error.pos].rstrip().endswith(",") else ""
        raise _no_json(path, f"{error}{comma}") from error
    except ValueError as error:  # a number with thousands of digits
        raise _no_json(path, str(error)) from error
    if kind is not None and not isinstance(content, kind):
        raise complain(
            f"{path} must hold {KINDS[kind]}, it holds {KINDS.get(type(content), 'a number')}.",
            remedy=f"Write {KINDS[kind]} there.",
        )
    return content


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Content of a YAML file, which JSON is, too.

    Raises:
        SemiSupervisedError: see :func:`read_text`; neither YAML nor JSON.
    """
    text = read_text(path)
    try:
        content = yaml.safe_load(text)
        json.dumps(content, default=str, skipkeys=True)  # an anchor that contains itself
    except RecursionError as error:
        raise _no_yaml(path, "too many brackets within each other.") from error
    except (yaml.YAMLError, ValueError, TypeError) as error:  # the latter two of dates and numbers that do not exist
        raise _no_yaml(path, str(error)) from error
    return content


def _no_json(path: str | os.PathLike[str], reason: str) -> SemiSupervisedError:
    test = shlex.join(["python", "-m", "json.tool", os.fspath(path)])
    return complain(f"{path} is not readable JSON ({reason}).", remedy=f"Correct it; this says where: {test}")


def _no_yaml(path: str | os.PathLike[str], reason: str) -> SemiSupervisedError:
    return complain(f"{path} is neither YAML nor JSON: {reason}", remedy="Correct it there.")
