"""How nnU-Net finds the semi-supervised trainers: the directory for nnUNet_extTrainer."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "nnUNet_extTrainer"


def external_directory() -> str:
    """The directory that holds the one module nnU-Net scans."""
    return str(Path(__file__).resolve().parent / "external")


def ext_trainer_value(current: str | None) -> str:
    """``current`` plus our directory, each entry once and in order, so that no other plugin is lost."""
    entries = [e for e in (current or "").split(os.pathsep) if e.strip()]
    spelled: dict[str, str] = {}  # a slash at the end or a link does not make another directory
    for entry in [*entries, external_directory()]:
        spelled.setdefault(os.path.realpath(entry), entry)
    return os.pathsep.join(spelled.values())


def register() -> None:
    """Set the variable for this process and its children; for commands of our own that call nnU-Net."""
    os.environ[VARIABLE] = ext_trainer_value(os.environ.get(VARIABLE))
