"""The places of the package where a complaint gets its remedy, and which of them spoke in a test."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import nnunet_ssl
from nnunet_ssl.data.outdated import Outdated
from nnunet_ssl.doctor.report import Finding
from nnunet_ssl.errors import SemiSupervisedError

PACKAGE = Path(nnunet_ssl.__file__).parent
BUILDERS = {"complain": (2, "remedy"), "Finding": (3, "remedy"), "Outdated": (2, "commands")}  # its place, its name


@cache
def remedies() -> dict[str, tuple[str, int, int]]:
    """Every call that gives a remedy: "module:function n", its nth one there -> file, first and last line."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        count = Counter[str]()
        for function, call in _calls(ast.parse(path.read_text(encoding="utf-8")), ""):
            count[function] += 1
            name = f"{module}:{function} {count[function]}"
            found[name] = (str(path), call.lineno, call.end_lineno or call.lineno)
    return found


def _calls(node: ast.AST, function: str) -> Iterator[tuple[str, ast.Call]]:
    for child in ast.iter_child_nodes(node):
        named = isinstance(child, (ast.FunctionDef, ast.ClassDef))
        inside = f"{function}.{child.name}".lstrip(".") if named else function
        if isinstance(child, ast.Call):
            place, keyword = BUILDERS.get(getattr(child.func, "id", ""), (99, ""))
            if len(child.args) > place or keyword in {word.arg for word in child.keywords}:
                yield inside, child
        yield from _calls(child, inside)


@contextmanager
def that_spoke() -> Iterator[set[str]]:
    """Names of :func:`remedies` at which a complaint or a finding is made inside the block."""
    spoke: set[str] = set()
    classes = (SemiSupervisedError, Finding, Outdated)
    before = [vars(each).get("__init__") for each in classes]
    for each in classes:
        original = each.__init__

        def listening(self, *arguments, original=original, **options):
            frame = sys._getframe(1)
            for _ in range(2):  # of the caller, or of the caller of `complain`
                file, line = frame.f_code.co_filename, frame.f_lineno
                spoke.update(
                    n for n, (path, first, last) in remedies().items() if path == file and first <= line <= last
                )
                frame = frame.f_back
                if frame is None:
                    break
            original(self, *arguments, **options)

        each.__init__ = listening  # type: ignore[method-assign]
    try:
        yield spoke
    finally:
        for each, earlier in zip(classes, before, strict=True):
            if earlier is None:
                del each.__init__
            else:
                each.__init__ = earlier  # type: ignore[method-assign]
