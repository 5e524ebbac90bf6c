"""Hashes of plain Python and of files."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def hash_of(content: Any) -> str:
    """sha256 of plain Python as JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def hash_of_file(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _hash(file)


def _hash(file: Any) -> str:
    """Of Python 3.10, which has no file_digest."""
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()
