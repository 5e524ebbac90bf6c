"""Write the tables of settings in docs/methods/*.md from the Hyperparameters of the trainers.

    python docs/settings_tables.py      # or: make docs-tables

A table stands between `<!-- settings: TRAINER -->` and `<!-- end -->`, that of the settings of every trainer
(`nnunet_ssl plans --training`) behind `<!-- settings: training -->`; everything else in a page is written by hand. A
preset lists what differs from its parent alone.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nnunet_ssl.setting_descriptions import Description, describe
from nnunet_ssl.system.whole_files import write_whole
from nnunet_ssl.trainers import TRAINERS, find_trainer
from nnunet_ssl.training.settings import TrainingSettings

PAGES = Path(__file__).resolve().parent / "methods"
COMMAND = "make docs-tables"
BLOCK = re.compile(r"(?P<start><!-- settings: (?P<name>\w+) -->\n)(?P<table>.*?)(?P<end><!-- end -->)", re.DOTALL)


def updated(page: str) -> str:
    """The text of a page with its tables as they should be."""
    return BLOCK.sub(lambda match: f"{match['start']}\n{table_of(match['name'])}\n{match['end']}", page)


def table_of(name: str) -> str:
    """The table of a trainer's settings, or of those of every trainer.

    Raises:
        AttributeError: no such trainer.
    """
    if name == "training":
        return _table(describe(TrainingSettings))
    trainer: Any = find_trainer(name)
    settings = describe(trainer.Hyperparameters)
    parent = parent_of(trainer)
    if parent is None:
        return _table(settings)
    before = {setting.name: setting.default for setting in describe(parent.Hyperparameters)}
    changed = [setting for setting in settings if setting.default != before[setting.name]]
    return _table(changed, {f"`{parent.__name__}`": [before[setting.name] for setting in changed]})


def parent_of(trainer: Any) -> Any:
    """The trainer of which this one is a preset: the same settings with other defaults. None for a method."""
    names = {setting.name for setting in describe(trainer.Hyperparameters)}
    for parent in trainer.__mro__[1:]:
        if parent.__name__ in TRAINERS and names == {s.name for s in describe(parent.Hyperparameters)}:
            return parent
    return None


def _table(settings: Sequence[Description], more: dict[str, list[str]] | None = None) -> str:
    """Markdown; a column in which nothing stands is left out."""
    columns = {
        "name": [f"`{setting.name}`" for setting in settings],
        "symbol": [setting.symbol and f"${setting.symbol}$" for setting in settings],
        "default": [setting.default for setting in settings],
        **(more or {}),
        "allowed": [setting.allowed for setting in settings],
        "meaning": [setting.doc for setting in settings],
        "source": [setting.source for setting in settings],
    }
    shown = {title: cells for title, cells in columns.items() if any(cells)}
    rows = [tuple(shown), ("---",) * len(shown), *zip(*shown.values(), strict=True)]
    return "".join(f"| {' | '.join(map(_escaped, row))} |\n" for row in rows)


def _escaped(cell: str) -> str:
    """Neither the end of the cell nor a tag of HTML."""
    return re.sub(r"[|<]", r"\\\g<0>", cell)


def outdated(folder: Path) -> Iterator[tuple[Path, str]]:
    """Pages whose tables are not current, with the text they should have."""
    for path in sorted(folder.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        if (wanted := updated(page)) != page:
            yield path, wanted


def main() -> int:
    for path, wanted in outdated(PAGES):
        write_whole(path, wanted.encode())
        print(f"updated {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
