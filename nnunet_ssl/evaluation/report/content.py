"""What the report says, before it becomes Markdown, LaTeX or HTML."""

from __future__ import annotations

from dataclasses import dataclass, field

from nnunet_ssl.evaluation.report.grids import Grid


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


@dataclass(frozen=True)
class Part:
    """One split: the table, what stands below it, and further tables."""

    grid: Grid
    notes: list[str]
    incomplete: list[str]
    more: list[Grid]


@dataclass(frozen=True)
class Section:
    """One dataset, configuration, plans and set of cases."""

    title: str
    parts: list[Part]
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
