"""What the report says, before it becomes Markdown, LaTeX or HTML."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

from nnunet_ssl.evaluation.report.drawing import DPI
from nnunet_ssl.evaluation.report.text_tables import TextTable


@dataclass(frozen=True)
class FigureFile:
    """One picture.

    Attributes:
        title: what it shows, also read to those who do not see it.
        caption: below it.
        file: path relative to the report.
        png: content.
    """

    title: str
    caption: str
    file: str
    png: bytes

    @property
    def width(self) -> int:
        """CSS pixels, from PNG's header, at which the text is as large as it was drawn."""
        return round(int.from_bytes(self.png[16:20], "big") * 96 / DPI)

    @property
    def base64(self) -> str:
        return base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Part:
    """One split: the table, what stands below it, and further tables."""

    table: TextTable
    notes: list[str]
    incomplete: list[str]
    more: list[TextTable]


@dataclass(frozen=True)
class Section:
    """One dataset, configuration, plans and set of cases. ``overview``: what is seen before the tables."""

    title: str
    parts: list[Part]
    overview: list[FigureFile] = field(default_factory=list)
    figures: list[FigureFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """Everything. ``summary``: sentences; ``definitions`` and ``provenance``: (term, text)."""

    title: str
    summary: list[str]
    sections: list[Section]
    definitions: list[tuple[str, str]]
    provenance: list[tuple[str, str]]
