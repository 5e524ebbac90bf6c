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
    return os.pathsep.join(dict.fromkeys([*entries, external_directory()]))


def register() -> None:
    """Set the variable for this process and its children; for commands of our own that call nnU-Net."""
    os.environ[VARIABLE] = ext_trainer_value(os.environ.get(VARIABLE))
