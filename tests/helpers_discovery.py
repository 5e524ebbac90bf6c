"""What child processes run to find our trainers; in a module of its own, so that spawned ones can import it."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Any


def find(name: str) -> Any:
    """nnU-Net's own look-up without its prints."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    with contextlib.redirect_stdout(io.StringIO()):
        return recursive_find_trainer_class_by_name(name)


def identity(trainer: type) -> str:
    return f"{trainer.__module__}.{trainer.__qualname__}"


def receive_and_find(received: list[type], names: list[str]) -> list[tuple[str, str, bool]]:
    """In a child: (class received by pickle, class found by nnU-Net, are both one object) for each name."""
    found = [find(name) for name in names]
    return [(identity(r), identity(f), r is f) for r, f in zip(received, found, strict=True)]


class Blocker:
    """Makes a package look uninstalled."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.split(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def block(package: str) -> None:
    assert not any(name.split(".")[0] == package for name in sys.modules)
    sys.meta_path.insert(0, Blocker(package))  # type: ignore[arg-type]
