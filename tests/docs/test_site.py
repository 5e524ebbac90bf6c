"""The site: formulas without a script, links that lead somewhere, every page in the navigation."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("mkdocs", reason="the site is built with the extra [docs]")


def hook(name: str) -> Any:
    """A module of docs/site as MkDocs loads it."""
    spec = importlib.util.spec_from_file_location(f"site_{name}", ROOT / "docs" / "site" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_formulas_become_mathml():
    page = (
        '<p>a <span class="arithmatex">\\(\\hat y_i &lt; 1\\)</span></p>'
        '<div class="arithmatex">\\[\\arg\\max_k p_k\\]</div>'
    )
    found = hook("formulas").on_page_content(page)
    assert found.count("<math") == 2 and "arithmatex" not in found
    assert 'display="inline"' in found and 'display="block"' in found
    assert "&#x0003C;" in found and "\\" not in found


@pytest.mark.parametrize(
    ("page", "link", "found"),
    [
        ("how-to/new-method.md", "../../CONTRIBUTING.md#style", "../generated/contributing.md#style"),
        ("how-to/benchmark.md", "../methods/cps.md", "../methods/cps.md"),
        ("generated/contributing.md", "docs/how-to/new-method.md", "../how-to/new-method.md"),
        ("generated/protocols.md", "../../docs/reference/metrics.md", "../reference/metrics.md"),
        ("index.md", "tutorials/compare.ipynb", "generated/tutorial-compare.md"),
        ("index.md", "https://arxiv.org/x.md", "https://arxiv.org/x.md"),
    ],
)
def test_links_out_of_the_folder_lead_to_pages(page, link, found):
    place = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    assert hook("outside").on_page_markdown(f"see [this]({link}).", place) == f"see [this]({found})."


def test_everything_broken_is_named_at_once(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "here.png").touch()
    (tmp_path / "index.html").write_text(
        '<h2 id="one">1</h2><a href="#one">a</a><a href="sub/page.html#two">b</a><img src="here.png">'
        '<a href="https://nowhere.example/x">c</a><a href="sub/">d</a>'
    )
    (tmp_path / "sub" / "index.html").write_text('<a href="../index.html#one">a</a>')
    (tmp_path / "sub" / "page.html").write_text('<h2 id="three">3</h2><img src="gone.png"><a href="../none.html">x</a>')
    assert list(hook("check").broken(tmp_path)) == [
        "index.html: sub/page.html#two names a heading that the page does not have",
        "sub/page.html: gone.png is not in the site",
        "sub/page.html: ../none.html is not in the site",
    ]


def methods_of_their_own() -> list[str]:
    """Pages of methods, without presets and without a network's training on labels alone."""
    pages = (path.stem for path in (ROOT / "docs" / "methods").glob("*.md"))
    return sorted(name for name in pages if not name.endswith(("_paper", "_released", "_supervised")))


def test_every_method_has_a_diagram_and_shows_it():
    assert sorted(hook("diagrams").diagrams()) == methods_of_their_own()
    for name in methods_of_their_own():
        assert f"](diagrams/{name}.svg)" in (ROOT / "docs" / "methods" / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", methods_of_their_own())
def test_a_diagram_is_drawn_from_its_entry(name):
    """Every word and as many arrows; run `make docs-diagrams` after a change of diagrams.yaml."""
    boxes, arrows = hook("diagrams").read(hook("diagrams").diagrams()[name])
    drawn = ElementTree.parse(ROOT / "docs" / "methods" / "diagrams" / f"{name}.svg")
    words = [text.text.strip() for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    wanted = [line for box in boxes.values() for line in box.text.split("\n")] + [a.text for a in arrows if a.text]
    assert sorted(words) == sorted(wanted)
    heads = [g for g in drawn.iter("{http://www.w3.org/2000/svg}g") if g.get("id", "").startswith("patch_")]
    assert len(heads) == 1 + len(boxes) + len(arrows)  # the background, boxes, arrows


def test_arrows_between_boxes_that_are_not_there_are_refused():
    boxes = {"a": ["network", "network"]}
    with pytest.raises(ValueError, match="not an arrow between two boxes: a > b"):
        hook("diagrams").read([boxes, ["a > b"]])


def test_every_page_is_in_the_navigation():
    configuration = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def pages(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [page for value in (entry.values() if isinstance(entry, dict) else entry) for page in pages(value)]

    named = [page for page in pages(configuration["nav"]) if not page.startswith("generated/")]
    written = [str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(named) == sorted(written)
