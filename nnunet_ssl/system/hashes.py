"""Hashes of plain Python and of files."""

from __future__ import annotations

import hashlib
import json
from typing import Any

BLOCK = 1 << 20  # bytes read at a time


def hash_of(content: Any) -> str:
    """sha256 of plain Python as JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def hash_of_file(path: str) -> str:
    """sha256 of the bytes of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
