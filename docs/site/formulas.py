"""Formulas of the pages as MathML, which browsers show without a script."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """MkDocs' hook: the HTML of a page, with what arithmatex has found."""
    return FORMULA.sub(_mathml, content)


def _mathml(match: re.Match[str]) -> str:
    display = "block" if match["tag"] == "div" else "inline"
    latex = html.unescape(match["latex"]).strip().replace(r"\arg", r"\operatorname{arg}")  # which the converter lacks
    return convert(latex, display=display)
