"""The report as Markdown."""

from __future__ import annotations

from nnunet_ssl.evaluation.report.content import Report, Section
from nnunet_ssl.evaluation.report.grids import Grid, Text


def render(report: Report) -> str:
    """Content of report.md. Figures are linked by their path relative to it."""
    lines = [f"# {report.title}", "", *[f"{sentence}\n" for sentence in report.summary]]
    for section in report.sections:
        lines += _section(section)
    lines += ["## What the columns mean", "", *[f"- **{term}**: {text}" for term, text in report.definitions], ""]
    lines += ["## How it was made", "", *[f"- {term}: {text}" for term, text in report.provenance], ""]
    return "\n".join(lines)


def grid_lines(grid: Grid) -> list[str]:
    """A Markdown table. The headings above groups of columns go into the columns."""
    above = [title for title, span in grid.groups for _ in range(span)]
    headings = [
        " ".join(part for part in (group, title, f"({detail})" if detail else "") if part)
        for group, (title, detail) in zip(above, grid.columns, strict=True)
    ]
    marks = [":--" if grid.is_text(index) else "--:" for index in range(len(headings))]
    rows = [headings, *([_cell(cell) for cell in row] for row in grid.rows)]
    lines = [f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row)} |" for row in rows]
    return [lines[0], f"|{'|'.join(marks)}|", *lines[1:]]


def _section(section: Section) -> list[str]:
    lines = [f"## {section.title}", ""]
    for part in section.parts:
        lines += [f"### {part.grid.title}", "", *grid_lines(part.grid), ""]
        lines += [*[f"- {note}" for note in part.notes], ""] if part.notes else []
        if part.incomplete:
            lines += ["Failed or incomplete:", "", *[f"- {entry}" for entry in part.incomplete], ""]
        for grid in part.more:
            lines += [f"#### {grid.title}", "", *grid_lines(grid), ""]
    for figure in section.figures:
        lines += [f"![{figure.title}]({figure.file})", "", f"*{figure.caption}*", ""]
    lines += [*[f"- {note}" for note in section.notes], ""] if section.notes else []
    return lines


def _cell(cell: Text) -> str:
    text = f"{cell.main} {cell.detail}".strip()
    return f"**{text}**" if cell.bold else text
