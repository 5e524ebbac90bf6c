from __future__ import annotations

import pytest

from nnunet_ssl.evaluation.report.load import load_benchmark
from nnunet_ssl.evaluation.report.published import beside, protocol_of, read_published
from nnunet_ssl.evaluation.report.tables import make_tables
from nnunet_ssl.evaluation.report.text_tables import published_table
from tests.evaluation.report import synthetic


@pytest.fixture
def rows(published, monkeypatch):
    """The small file of reported numbers in place of this package's."""
    monkeypatch.setattr("nnunet_ssl.evaluation.report.published.PATH", published)
    return read_published()


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Splits with 6 of 16 and 4 of 16 labelled cases."""
    folder = synthetic.build(tmp_path_factory.mktemp("p"), splits={"n6": (6, 10), "n4": (4, 12)}, failed=())
    found = make_tables(load_benchmark(str(folder)), ("dice", "hd95"), synthetic.CONTROL, {synthetic.DATASET: {}})
    return {table.split: table for table in found}


def test_the_same_number_or_fraction_of_the_same_dataset(tables, rows):
    by_number, by_fraction = beside(tables["n6"], rows, None).rows, beside(tables["n4"], rows, None).rows
    assert list(by_number["method"]) == ["X_Net", "X_Net"]  # 6 cases, of whatever total; not the row of its class
    assert list(by_number["metric"]) == ["dice", "hd95"]
    assert list(by_fraction["method"]) == ["Y-Net"]  # 5 of 20 and 4 of 16 are a quarter; 15 of 20 are not


def test_a_class_stands_for_a_missing_mean(tables, rows):
    rows = rows.assign(labeled=4)
    chosen = beside(tables["n4"], rows, None).rows
    assert list(zip(chosen["method"], chosen["class"], strict=True)) == [
        ("X_Net", "mean"), ("X_Net", "mean"), ("Y-Net", "mean"),
    ]  # fmt: skip
    rows = rows[rows["class"] != "mean"]
    assert list(beside(tables["n4"], rows, None).rows["class"]) == ["ball", "ball"]


def test_why_they_do_not_compare(tables, rows):
    dice, hd95 = beside(tables["n6"], rows, None).rows["caveat"]
    assert dice == "other cases, split and preprocessing"
    assert hd95 == "other cases, split and preprocessing; HD95 in voxel, ours in mm"
    dice, hd95 = beside(tables["n6"], rows, "TINY").rows["caveat"]
    assert (dice, hd95) == ("", "HD95 in voxel, ours in mm")
    assert beside(tables["n6"], rows, "la").rows["caveat"].iloc[0] == "other cases, split and preprocessing"


def test_published_table(tables, rows):
    found = published_table(tables["n6"], beside(tables["n6"], rows, None))
    assert found.title == "Reported by papers, not directly comparable"
    ours, theirs = found.rows[0], found.rows[-1]
    assert [c.main for c in ours] == ["this benchmark", "Supervised (control)", "6", "mean", "61.0 %", "3.90 mm", ""]
    assert [c.main for c in theirs[:6]] == ["Doe & Roe", "X_Net", "6 of 80", "mean", "81.25 %", "3.5 voxel"]
    assert theirs[0].detail == "Table 2"
    assert theirs[6].main == "not directly: other cases, split and preprocessing; HD95 in voxel, ours in mm"
    assert theirs[6].detail == "best of <5> epochs"
    rows = rows[rows["metric"] == "dice"]
    same = published_table(tables["n6"], beside(tables["n6"], rows, "tiny"))
    assert same.title == "Reported by papers" and same.rows[-1][-1].main == "same protocol (tiny)"


def test_nothing_is_said_where_nothing_fits(tables, rows):
    assert published_table(tables["n6"], beside(tables["n6"], rows[rows["dataset"] == "LA"], None)) is None


@pytest.mark.parametrize(
    ("manifest", "protocol"),
    [
        ({}, None),
        ({"protocol": "la"}, "la"),
        ({"datasets": [{"dataset": "901", "protocol": "acdc"}, {"dataset": "7", "protocol": "la"}]}, "acdc"),
        ({"datasets": [{"dataset": "Dataset901_Tiny", "protocol": "acdc"}], "protocol": "la"}, "acdc"),
        ({"datasets": [{"dataset": "7", "protocol": "acdc"}]}, None),
    ],
)
def test_protocol_of_a_manifest(manifest, protocol):
    assert protocol_of(manifest, "Dataset901_Tiny") == protocol


def test_the_published_numbers_of_this_package_are_readable():
    rows = read_published()
    assert len(rows) > 0
    assert rows["value"].notna().all()
