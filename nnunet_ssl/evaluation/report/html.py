"""The report as one page without anything from outside: pictures as data, style inside, no script."""

from __future__ import annotations

import base64
from html import escape

from nnunet_ssl.evaluation.report.content import FigureFile, Part, Report, Section
from nnunet_ssl.evaluation.report.drawing import DPI
from nnunet_ssl.evaluation.report.grids import Grid, Text
from nnunet_ssl.evaluation.report.page_style import STYLE

ICON = "data:,"  # or the browser would ask the server for favicon.ico


def render(report: Report) -> str:
    """Content of index.html."""
    summary = "".join(f"<p>{escape(sentence)}</p>" for sentence in report.summary)
    links = "".join(
        f'<li><a href="#section-{index}">{escape(section.title)}</a></li>'
        for index, section in enumerate(report.sections)
    )
    contents = f"<nav><ul>{links}</ul></nav>" if len(report.sections) > 1 else ""
    sections = "".join(_section(section, index) for index, section in enumerate(report.sections))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="{ICON}">\n<title>{escape(report.title)}</title>\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n<header><h1>{escape(report.title)}</h1>{summary}{contents}</header>\n<main>{sections}</main>\n"
        f"<footer>{_terms('What the columns mean', report.definitions)}"
        f"{_terms('How it was made', report.provenance)}</footer>\n</body>\n</html>\n"
    )


def grid_table(grid: Grid) -> str:
    """One table element, in a box that scrolls if it is wider than the page."""
    heads = []
    if any(title for title, _ in grid.groups):
        cells = [
            f'<th colspan="{span}" scope="colgroup"{_kind("group") if title else ""}>{escape(title)}</th>'
            for title, span in grid.groups
        ]
        heads.append(f"<tr>{''.join(cells)}</tr>")
    cells = [
        f'<th scope="col"{_kind("text") if grid.is_text(index) else ""}>{escape(title)}{_small(detail)}</th>'
        for index, (title, detail) in enumerate(grid.columns)
    ]
    heads.append(f"<tr>{''.join(cells)}</tr>")
    rows = [_row(row, grid, index) for index, row in enumerate(grid.rows)]
    return f'<div class="scroll"><table><thead>{"".join(heads)}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def _row(row: list[Text], grid: Grid, number: int) -> str:
    cells = []
    for index, cell in enumerate(row):
        text = f"<strong>{escape(cell.main)}</strong>" if cell.bold else escape(cell.main)
        tag, scope = ("th", ' scope="row"') if index == 0 else ("td", "")
        kind = "text" if grid.is_text(index) else ""
        kind += " remark" if grid.remarks and index == len(row) - 1 else ""
        cells.append(f"<{tag}{scope}{_kind(kind)}>{text}{_small(cell.detail)}</{tag}>")
    return f"<tr{_kind('control') if number in grid.emphasised else ''}>{''.join(cells)}</tr>"


def _section(section: Section, index: int) -> str:
    parts = "".join(_part(part) for part in section.parts)
    figures = "".join(_figure(figure) for figure in section.figures)
    notes = _list(section.notes, "notes")
    return f'<section id="section-{index}"><h2>{escape(section.title)}</h2>{parts}{figures}{notes}</section>'


def _part(part: Part) -> str:
    incomplete = ""
    if part.incomplete:
        incomplete = f'<div class="incomplete"><h4>Failed or incomplete</h4>{_list(part.incomplete, "")}</div>'
    more = "".join(
        f"<details><summary>{escape(grid.title)}</summary>{grid_table(grid)}</details>" for grid in part.more
    )
    return (
        f"<article><h3>{escape(part.grid.title)}</h3>{grid_table(part.grid)}{_list(part.notes, 'notes')}"
        f"{incomplete}{more}</article>"
    )


def _figure(figure: FigureFile) -> str:
    data = base64.b64encode(figure.png).decode()
    width = round(int.from_bytes(figure.png[16:20], "big") * 96 / DPI)  # from PNG's header; text as large as drawn
    return (
        f'<figure><img alt="{escape(figure.title)}" width="{width}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(figure.caption)}</figcaption></figure>"
    )


def _terms(title: str, terms: list[tuple[str, str]]) -> str:
    entries = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in terms)
    return f"<h2>{escape(title)}</h2><dl>{entries}</dl>"


def _list(entries: list[str], kind: str) -> str:
    if not entries:
        return ""
    return f"<ul{_kind(kind)}>{''.join(f'<li>{escape(entry)}</li>' for entry in entries)}</ul>"


def _small(text: str) -> str:
    return f"<small>{escape(text)}</small>" if text else ""


def _kind(name: str) -> str:
    return f' class="{name}"' if name else ""
