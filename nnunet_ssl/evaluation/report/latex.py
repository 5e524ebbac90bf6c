"""The tables of the report as LaTeX, to be \\input in a paper."""

from __future__ import annotations

from nnunet_ssl.evaluation.report.content import Report
from nnunet_ssl.evaluation.report.grids import Grid, Text

SPECIAL = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "\u2212": "$-$",
    "\u2013": "--",
    "\u00b1": r"$\pm$",
    "\u00d7": r"$\times$",
}
HEAD = """% {title}
% In the preamble: \\usepackage{{booktabs,graphicx}} and \\usepackage[T1]{{fontenc}}
% Bold: differs from the control, Wilcoxon's p below 0.05 after Holm's correction.
"""


def escape(text: str) -> str:
    """Text in which every special character of LaTeX is written out."""
    return "".join(SPECIAL.get(character, character) for character in text)


def render(report: Report) -> str:
    """Content of report.tex: one table environment per table of the report."""
    blocks = [HEAD.format(title=_comment(report.title))]
    for section in report.sections:
        blocks.append(f"% {_comment(section.title)}\n")
        for part in section.parts:
            caption = [f"{section.title}. {part.grid.title}.", *part.notes]
            if part.incomplete:
                caption.append(f"Failed or incomplete: {len(part.incomplete)}.")
            blocks.append(table(part.grid, " ".join(caption)))
            blocks += [table(grid, f"{section.title}. {part.grid.title}. {grid.title}.") for grid in part.more]
    return "\n".join(blocks)


def table(grid: Grid, caption: str) -> str:
    """A table environment, as wide as the text at most."""
    alignment = ["l" if grid.is_text(index) else "r" for index in range(len(grid.columns))]
    if grid.remarks:
        alignment[-1] = r"p{6cm}"
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{escape(caption)}}}"]
    lines += [
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{''.join(alignment)}}}",
    ]
    lines += [r"\toprule", *_groups(grid)]
    lines.append(_line([escape(f"{title} {detail}".strip()) for title, detail in grid.columns]))
    lines += [r"\midrule", *(_line([_cell(cell) for cell in row]) for row in grid.rows), r"\bottomrule"]
    return "\n".join([*lines, r"\end{tabular}}", r"\end{table}", ""])


def _groups(grid: Grid) -> list[str]:
    if not any(title for title, _ in grid.groups):
        return []
    cells, rules, start = [], [], 1
    for title, span in grid.groups:
        cells.append(rf"\multicolumn{{{span}}}{{c}}{{{escape(title)}}}")
        if title:
            rules.append(rf"\cmidrule(lr){{{start}-{start + span - 1}}}")
        start += span
    return [_line(cells), " ".join(rules)]


def _cell(cell: Text) -> str:
    text = escape(f"{cell.main} {cell.detail}".strip())
    return rf"\textbf{{{text}}}" if cell.bold else text


def _line(cells: list[str]) -> str:
    # a bracket at the start of the next line would be read as the argument of the line break
    return " & ".join(f"{{{cell}}}" if cell.startswith("[") else cell for cell in cells) + r" \\"


def _comment(text: str) -> str:
    return " ".join(text.split())
