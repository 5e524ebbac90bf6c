"""The published values on the pages of docs/reproduce are those of the papers' tables, row by row and in their order.

The texts of the papers are not part of the project: where they are not beside it, this is skipped.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import reproduce

ROOT = Path(__file__).resolve().parents[2]
PAPERS = ROOT.parent / "shared" / "papers"
pytestmark = pytest.mark.skipif(not PAPERS.is_dir(), reason=f"no {PAPERS}")
NUMBER = re.compile(r"\d+\.\d+(?: ± \d+\.\d+)?(?![\d.]*%)")

# of each table in order: columns that a page has of a row, several where it makes several rows of one
TABLES: dict[str, list[list[slice]]] = {
    "skcdf": [[slice(0, 2)]] * 5,
    "dkuxnet": [[slice(0, 4)]] * 2,
    "dual_networks": [[slice(0, 4)], [slice(0, 4)], [slice(0, 4), slice(4, 8)]],
    "plgcl": [*[[slice(0, 3)]] * 3, [slice(0, 3), slice(3, 6), slice(6, 9)], [slice(0, 3), slice(3, 6)]],
    "cmaformer_ldc": [[slice(0, 1)], [slice(0, 3)], [slice(0, 3)]],
}
OF_METHODS = {"skcdf": 2, "dkuxnet": 1, "dual_networks": 2, "plgcl": 3, "cmaformer_ldc": 2}
"""So many first tables compare methods by name; those behind them are ablations."""
WITH_DEVIATIONS = ("skcdf",)
OURS = {"skcdf": "SKCDF", "dkuxnet": "DKUXNet", "dual_networks": "Dual Networks", "plgcl": "PLGCL",
        "cmaformer_ldc": "CMAformer"}  # fmt: skip
Line = tuple[str, list[str]]  # what is before the numbers, the numbers


def printed(slug: str) -> list[list[Line]]:
    """The rows of each table of a paper, as its text has them: cells with tabs between."""
    text = (PAPERS / f"{slug}.txt").read_text(encoding="utf-8")
    text = re.sub(r"</?\w+>|\$", "", text).replace("\\pm", "±")
    lines = [(line, NUMBER.findall(line)) for line in text.splitlines() if "\t" in line]
    blocks = [list(rows) for has_values, rows in groupby(lines, lambda line: len(line[1]) > 1) if has_values]
    return [[(line.split(values[0])[0], values) for line, values in rows] for rows in blocks]


def on_the_page(slug: str) -> list[list[reproduce.Row]]:
    """The rows of each table of a page."""
    rows = reproduce.read_page(ROOT / "docs" / "reproduce" / f"{slug}.md").rows
    return [list(found) for _, found in groupby(rows, lambda row: row.name.split("-")[0])]


def without_deviation(values: Sequence[str]) -> list[str]:
    return [value.split(" ± ")[0] for value in values]


@pytest.mark.parametrize("slug", TABLES)
def test_values(slug):
    tables, pages = printed(slug), on_the_page(slug)
    assert len(tables) == len(pages) == len(TABLES[slug])
    for index, (table, page, parts) in enumerate(zip(tables, pages, TABLES[slug], strict=True)):
        wanted = [values[part] for part in parts for _, values in table]
        if slug not in WITH_DEVIATIONS:
            wanted = [without_deviation(values) for values in wanted]
        assert [row.published.split(", ") for row in page] == wanted
        if index < OF_METHODS[slug]:
            unlike = [(row.paper, name) for row, (name, _) in zip(page, table, strict=True)
                      if not fits(row.paper, name, OURS[slug])]  # fmt: skip
            assert unlike == []


def fits(page: str, paper: str, ours: str) -> bool:
    """Whether a row of the page has the name of its row in the paper."""
    mine, cell = (re.sub(r"\[\d+\]|[\s-]", "", name).lower() for name in (page.split(",")[0], paper))
    return mine in cell or ("ours" in cell and page.startswith(ours))


def test_names_are_compared():
    assert fits("UA-MT, 10 %", "General\tUA-MT[43]\t", "PLGCL") and fits("PLGCL, 10 %", "Ours\t", "PLGCL")
    assert not fits("DTC, 10 %", "UA-MT [65]\t", "PLGCL") and not fits("UA-MT, 10 %", "Ours\t", "PLGCL")
