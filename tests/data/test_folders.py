"""The preprocessed folder: datasets, plans and labelled cases."""

from __future__ import annotations

import json

import pytest

from nnunet_ssl.data.folders import labeled_cases, load_plans, name_problem, preprocessed_base, write_json
from nnunet_ssl.errors import SemiSupervisedError
from tests.helpers_splits import CASES, DATASET, PLANS, make_planned


def test_dataset_by_id_and_by_name(tmp_path, monkeypatch):
    base = make_planned(tmp_path, monkeypatch)
    assert [preprocessed_base(name) for name in (4, "4", "004", DATASET)] == [str(base)] * 4


@pytest.mark.parametrize("name", [5, "five", "Dataset005_No"])
def test_unknown_dataset(tmp_path, monkeypatch, name):
    make_planned(tmp_path, monkeypatch)
    with pytest.raises(SemiSupervisedError, match=str(name)):
        preprocessed_base(name)


def test_variable_not_set(monkeypatch):
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    with pytest.raises(SemiSupervisedError, match="nnUNet_preprocessed is not set"):
        preprocessed_base("Dataset004_Toy")


def test_unknown_plans_list_the_others(tmp_path, monkeypatch):
    base = make_planned(tmp_path, monkeypatch)
    (base / "nnUNetPlans_b.json").write_text(json.dumps(PLANS))
    (base / "splits_final.json").write_text("[]")
    assert load_plans(str(base), "nnUNetPlans") == PLANS
    with pytest.raises(SemiSupervisedError, match=r"nope.json.*dataset: nnUNetPlans, nnUNetPlans_b\."):
        load_plans(str(base), "nope")


def test_labelled_cases(tmp_path, monkeypatch):
    base = make_planned(tmp_path, monkeypatch)
    assert labeled_cases(str(base), PLANS) == CASES


def test_nothing_is_preprocessed(tmp_path, monkeypatch):
    base = make_planned(tmp_path, monkeypatch, configurations=[])
    with pytest.raises(
        SemiSupervisedError, match=f"nnUNetv2_preprocess -d {int(DATASET[7:10])} -plans_name nnUNetPlans"
    ):
        labeled_cases(str(base), PLANS)


def test_incomplete_preprocessing(tmp_path, monkeypatch):
    base = make_planned(tmp_path, monkeypatch)
    for case in CASES[:2]:
        (base / "nnUNetPlans_2d" / f"{case}.b2nd").unlink()
    with pytest.raises(SemiSupervisedError, match="nnUNetPlans_2d: toy_01, toy_02\n"):
        labeled_cases(str(base), PLANS)


@pytest.mark.parametrize("name", ["l10", "l2.5", "nnUNetPlans_l10", "a-b", "x"])
def test_usable_names(name):
    assert name_problem(name) == ""


@pytest.mark.parametrize("name", ["", "a__b", "_a", "a_", "a/b", "..", "a b", "a\n", "\\a"])
def test_unusable_names(name):
    assert "double underscore" in name_problem(name)


def test_numbers_that_json_does_not_have(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    content = {"a": [1.0, float("nan")], "b": {"c": (float("-inf"),), "d": 2}}
    with pytest.raises(SemiSupervisedError) as caught:
        write_json(str(path), content)
    assert str(path) in str(caught.value)
    assert [line for line in str(caught.value).splitlines() if line.startswith("  - ")] == [
        "  - a.1: nan",
        "  - b.c.0: -inf",
    ]
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.json", "old")]
