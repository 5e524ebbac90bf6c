"""Links to files outside docs/ lead to the page that the site has of them."""

from __future__ import annotations

import posixpath
import re
from typing import Any

PAGES = {
    "CONTRIBUTING.md": "generated/contributing.md",
    "CHANGELOG.md": "generated/changelog.md",
    "benchmarks/protocols/README.md": "generated/protocols.md",
    "README.md": "index.md",
}
LINK = re.compile(r"\]\((?P<path>[^)#:\s]+\.md)(?P<anchor>#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """MkDocs' hook: the text of a page, with links that start from its place in the repository."""
    here = page.file.src_uri
    source = {site: path for path, site in PAGES.items()}.get(here, f"docs/{here}")

    def moved(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match["path"]))
        target = PAGES.get(path, path.removeprefix("docs/"))
        return f"]({posixpath.relpath(target, posixpath.dirname(here) or '.')}{match['anchor'] or ''})"

    return LINK.sub(moved, markdown)
