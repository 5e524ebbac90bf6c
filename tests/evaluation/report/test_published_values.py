"""The table of numbers reported by the papers: its form, and its values against the text of the papers."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from nnunet_ssl.evaluation.report.published import COLUMNS, PATH

PROTOCOLS = Path(__file__).resolve().parents[3] / "benchmarks" / "protocols"
TEXTS = {
    "SKCDF": "skcdf",
    "DKUXNet": "dkuxnet",
    "Dual Networks": "dual_networks",
    "PLGCL": "plgcl",
    "CMAformer-LDC": "cmaformer_ldc",
}
RELEASES = {"UniMatch", "CrossMatch", "nnFilterMatch", "BCP", "AD-MT", "DTC"}
"""Whose numbers are those of README, log or thread, as the methods' specifications quote them."""
DISTANCES = ("hd95", "asd")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with open(PATH, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def papers() -> dict[str, str]:
    default = Path(__file__).resolve().parents[4] / "shared" / "papers"
    folder = Path(os.environ.get("NNUNET_SSL_TEST_PAPERS", default))
    if not folder.is_dir():
        pytest.skip(f"texts of the papers not found at {folder} (set NNUNET_SSL_TEST_PAPERS)")
    texts = {paper: (folder / f"{name}.txt").read_text(encoding="utf-8") for paper, name in TEXTS.items()}
    quoted = "\n".join(path.read_text(encoding="utf-8") for path in (folder.parent / "methods").glob("*.md"))
    return texts | dict.fromkeys(RELEASES, quoted)


def value(rows: list[dict[str, str]], **wanted: str) -> float:
    found = [row for row in rows if all(row[key] == content for key, content in wanted.items())]
    assert len(found) == 1, f"{len(found)} rows for {wanted}"
    return float(found[0]["value"])


def test_columns_and_keys(rows):
    assert list(rows[0]) == COLUMNS
    assert len(rows) > 900
    keys = [tuple(row[key] for key in ("paper", "method", "dataset", "labeled", "metric", "class")) for row in rows]
    assert [key for key, times in Counter(keys).items() if times > 1] == []
    assert {row["paper"] for row in rows} == {*TEXTS, *RELEASES}


def test_datasets_and_numbers_are_those_of_the_protocols(rows):
    protocols = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in PROTOCOLS.glob("*.yaml")]
    assert {row["dataset"] for row in rows} == {protocol["name"] for protocol in protocols}
    for row in rows:
        own = [split for p in protocols if p["name"] == row["dataset"] for split in p["splits"].values()]
        sizes = {number for split in own for number in split["counts"]["train"]}
        marked = {rule["count"] for split in own for rule in split["labeled"].values()}
        assert int(row["total"]) in sizes, row
        marked |= {1} if row["paper"] == "UniMatch" else set()  # one patient, beside the usual 3 and 7
        assert int(row["labeled"]) in marked | {int(row["total"])}, row


def test_units_ranges_and_notes(rows):
    for row in rows:
        number = float(row["value"])
        assert row["unit"] == ("voxel" if row["metric"] in DISTANCES else "%"), row
        assert row["metric"] in ("dice", "jaccard", *DISTANCES), row
        assert 0 <= number <= (128 if row["metric"] in DISTANCES else 100), row
        assert not row["std"] or 0 <= float(row["std"]) < 20, row
        assert 0 < int(row["labeled"]) <= int(row["total"]), row
        table = re.fullmatch(r"Table (\d[a-c]?|I{1,2})", row["source"])
        assert row["note"] and row["source"] and bool(table) == (row["paper"] in TEXTS), row


def test_means_of_the_classes_are_the_reported_means(rows):
    """Where all classes are given; a few rows are printed with means that their own columns do not give."""
    misprints = {("CLD", "Synapse"), ("SimiS", "Synapse"), ("GenericSSL", "AMOS"), ("CoTr", "Synapse")}
    by_row: dict[tuple[str, ...], dict[str, float]] = {}
    for row in rows:
        if row["metric"] == "dice":
            key = tuple(row[name] for name in ("paper", "method", "dataset", "labeled"))
            by_row.setdefault(key, {})[row["class"]] = float(row["value"])
    classes = {key: found for key, found in by_row.items() if len(found) > 1}
    assert len(classes) == 15 + 15 + 1 + 7 + 10
    off = set()
    for key, found in classes.items():
        others = [number for name, number in found.items() if name != "mean"]
        if abs(sum(others) / len(others) - found["mean"]) > 0.035:
            off.add((key[1], key[2]))
    assert off <= misprints and ("CLD", "Synapse") in off


def test_some_values(rows):
    synapse = {"paper": "SKCDF", "dataset": "Synapse", "labeled": "4"}
    assert value(rows, **synapse, method="SKCDF", metric="dice", **{"class": "mean"}) == 64.27
    assert value(rows, **synapse, method="SKCDF", metric="asd", **{"class": "mean"}) == 1.45
    assert value(rows, **synapse, method="DHC", metric="dice", **{"class": "left adrenal gland"}) == 10.6
    assert value(rows, paper="SKCDF", dataset="AMOS", method="SKCDF", metric="dice", **{"class": "duodenum"}) == 32.2
    assert value(rows, paper="DKUXNet", method="DKUXNet", labeled="8", metric="hd95") == 7.32
    assert value(rows, paper="DKUXNet", method="V-Net", metric="jaccard") == 83.61
    assert value(rows, paper="Dual Networks", dataset="Pancreas-CT", method="LUSEG", metric="asd") == 2.79
    assert value(rows, paper="PLGCL", dataset="ACDC", method="PLGCL", labeled="7", metric="dice") == 89.1
    assert value(rows, paper="PLGCL", dataset="KiTS19", method="GBDL", labeled="4", metric="hd95") == 6.85
    assert value(rows, paper="CMAformer-LDC", method="CMAformer-SSL", metric="dice", **{"class": "tumor"}) == 94.21


def test_every_value_stands_in_the_paper(rows, papers):
    tokens = {paper: set(re.findall(r"\d+\.\d+", text)) for paper, text in papers.items()}
    for row in rows:
        fraction = row["paper"] == "PLGCL" and row["metric"] == "dice"
        printed = f"{float(row['value']) / 100:.3f}" if fraction else row["value"]
        assert printed in tokens[row["paper"]], row
        if row["std"]:
            std = float(row["std"]) / 100 if "std printed as a fraction" in row["note"] else row["std"]
            assert (f"{std:.3f}" if isinstance(std, float) else std) in tokens[row["paper"]], row


@pytest.mark.parametrize(
    ("paper", "line", "wanted"),
    [
        (
            "SKCDF",
            "DHC[31]\t49.53\t13.89\t68.1\t69.6\t71.1\t42.3\t37.0\t76.8\t43.8\t70.8\t57.4\t43.2\t27.0\t28.7\t29.1\t41.4",
            {"method": "DHC", "dataset": "AMOS"},
        ),
        ("DKUXNet", "CAML [15]\t\t89.62\t81.28\t8.76\t2.02", {"method": "CAML", "labeled": "8"}),
        ("PLGCL", "LCLPL [10]\t\t0.905\t3.91\t1.51", {"method": "LCLPL", "labeled": "14"}),
        ("CMAformer-LDC", "nnFormer [34]\t93.10\t96.01\t90.16", {"method": "nnFormer", "dataset": "LiTS"}),
    ],
)
def test_whole_lines_of_the_papers(paper, line, wanted, rows, papers):
    """The numbers of a row of a table, in its order."""
    assert line in papers[paper]
    printed = [float(number) for number in re.findall(r"\d+\.\d+", re.sub(r"^[^\t]*", "", line))]
    found = [row for row in rows if row["paper"] == paper and all(row[key] == v for key, v in wanted.items())]
    numbers = [float(row["value"]) for row in found]
    if paper == "PLGCL":
        printed[0] *= 100
    assert numbers[: len(printed)] == pytest.approx(printed)
