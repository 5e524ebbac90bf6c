"""Pages and tables as text, from the templates beside this module."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from tabulate import tabulate

LATEX = str.maketrans(
    {
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
)


def render(template: str, **content: Any) -> str:
    """A page from the template of that name, in whose language (html, tex) everything in ``content`` is escaped."""
    return _environment(template.rpartition(".")[2]).get_template(template).render(**content)


def escape_latex(text: Any) -> str:
    """Text in which every special character of LaTeX is written out."""
    return str(text).translate(LATEX)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], text: Sequence[bool]) -> str:
    """A Markdown table, aligned also as plain text. ``text``: the columns that are aligned to the left."""
    first, *body = ([cell.replace("|", "\\|") for cell in row] for row in (head, *rows))
    sides = ["left" if is_text else "right" for is_text in text]
    return tabulate(body, first, tablefmt="pipe", disable_numparse=True, colalign=sides if body else None)


@cache
def _environment(language: str) -> Environment:
    options: dict[str, Any] = {"autoescape": language == "html"}
    if language == "tex":  # whose own text is full of braces
        signs = {"block": ("<%", "%>"), "variable": ("<<", ">>"), "comment": ("<#", "#>")}
        options = {f"{kind}_start_string": start for kind, (start, _) in signs.items()}
        options |= {f"{kind}_end_string": end for kind, (_, end) in signs.items()}
        options["finalize"] = escape_latex
    return Environment(
        loader=PackageLoader("nnunet_ssl.evaluation", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
