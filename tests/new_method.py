"""The trainer that docs/how-to/new-method.md builds, as its reader has it: a file in a folder of their own."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "how-to" / "new-method.md").read_text(encoding="utf-8")
MINE = "nnUNetTrainerMine"


def blocks(language: str) -> list[str]:
    """The code of the page in this language; lines that end in a backslash are joined to the next."""
    text = re.sub(r" \\\n +", " ", PAGE)
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def write_trainer(home: Path) -> Path:
    """The page's file where the page says; its folder is returned."""
    (code,) = blocks("python")
    (name,) = re.findall(r"`~/(\w+/\w+\.py)`", PAGE)
    file = home / name
    file.parent.mkdir()
    file.write_text(code, encoding="utf-8")
    return file.parent
