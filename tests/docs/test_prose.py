"""Markdown is read in editors and in differences, too: its lines are short."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 120


def pages() -> list[str]:
    found = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("*.md")]
    for folder in ("docs", "benchmarks"):
        found += [path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.md")]
    return sorted(found)


def notebooks() -> list[str]:
    return sorted(path.name for path in (ROOT / "docs" / "tutorials").glob("*.ipynb"))


def too_long(text: str) -> Iterator[int]:
    """Numbers of the lines that could be shorter: neither rows of tables, nor formulas, nor a single link or path."""
    formula = False
    for number, line in enumerate(text.splitlines(), 1):
        of_formula = formula or line.lstrip().startswith("$$")
        formula ^= line.count("$$") % 2 == 1
        breakable = not of_formula and not line.lstrip().startswith("|") and len(line.rstrip(" \\").split()) > 1
        if len(line) >= LIMIT and breakable:
            yield number


@pytest.mark.parametrize("page", pages())
def test_lines_of_markdown_are_short(page: str):
    assert list(too_long((ROOT / page).read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("notebook", notebooks())
def test_lines_of_a_notebooks_text_are_short(notebook: str):
    cells = json.loads((ROOT / "docs" / "tutorials" / notebook).read_text(encoding="utf-8"))["cells"]
    texts = {cell["id"]: "".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"}
    assert texts and {name: lines for name, text in texts.items() if (lines := list(too_long(text)))} == {}


def test_what_may_be_long_and_what_may_not():
    long = "word " * 30
    text = "\n".join([long, f"| {long} |", f"$${long}$$", "$$", long, "$$", "x" * 150, "short"])
    assert list(too_long(text)) == [1]
