"""Links to files outside docs/ and to notebooks lead to the page that the site has of them."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"
PAGES = {
    "CONTRIBUTING.md": "generated/contributing.md",
    "CHANGELOG.md": "generated/changelog.md",
    "benchmarks/protocols/README.md": "generated/protocols.md",
    "README.md": "index.md",
    **{f"tutorials/{path.name}": f"generated/tutorial-{path.stem}.md" for path in TUTORIALS.glob("*.ipynb")},
}
LINK = re.compile(r"\]\((?P<path>[^)#:\s]+\.(?:md|ipynb))(?P<anchor>#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """MkDocs' hook: the text of a page, with links that start from its place in the repository."""
    here = page.file.src_uri
    source = {site: path for path, site in PAGES.items()}.get(here, f"docs/{here}")

    def moved(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match["path"]))
        inside = path.removeprefix("docs/")
        target = PAGES.get(path) or PAGES.get(inside, inside)
        return f"]({posixpath.relpath(target, posixpath.dirname(here) or '.')}{match['anchor'] or ''})"

    return LINK.sub(moved, markdown)
