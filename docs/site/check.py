"""Every link, anchor and image of the built site leads somewhere, without asking the network.

MkDocs checks the links of the Markdown; this checks what became of them, and of pages and HTML that were generated.
"""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mkdocs.exceptions import PluginError


class _Page(HTMLParser):
    """What a page has as anchors, and what it asks for."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = {"", "__skip"}
        self.wanted: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        self.wanted += [found[name] for name in ("href", "src") if name in found]


def broken(site: Path) -> Iterator[str]:
    """One sentence for each link, anchor or image of the HTML files of a folder that is not there."""
    pages = {path: _Page(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    for path, page in pages.items():
        for wanted in page.wanted:
            url = urlsplit(wanted)
            if url.scheme or url.netloc:
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                yield f"{path.relative_to(site)}: {wanted} is not in the site"
            elif target in pages and unquote(url.fragment) not in pages[target].anchors:
                yield f"{path.relative_to(site)}: {wanted} names a heading that the page does not have"


def on_post_build(config: Any, **_: Any) -> None:
    """MkDocs' hook: the build fails with all that is broken at once."""
    found = list(broken(Path(config["site_dir"]).resolve()))
    if found:
        raise PluginError("\n".join([f"{len(found)} broken links:", *found]))
