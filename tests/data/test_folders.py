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


@pytest.mark.parametrize("name", [f"{DATASET}/", "4/", f"{DATASET}//"])
def test_a_slash_at_the_end_is_of_no_account(tmp_path, monkeypatch, name):
    base = make_planned(tmp_path, monkeypatch)
    assert preprocessed_base(name) == str(base)


@pytest.mark.parametrize("name", ["DatasetFoo", "Dataset", "Dataset_Foo", "Dataset004", f"{DATASET}/imagesTr"])
def test_no_name_of_a_dataset(tmp_path, monkeypatch, name):
    make_planned(tmp_path, monkeypatch)
    with pytest.raises(SemiSupervisedError) as caught:
        preprocessed_base(name)
    assert str(caught.value).startswith(f'"{name}" is not the name of a dataset')
    assert str(caught.value).endswith(f"Datasets there: {DATASET}. Give a name or an id.")


def test_planning_is_advised_only_where_there_are_raw_data(tmp_path, monkeypatch):
    make_planned(tmp_path, monkeypatch)
    with pytest.raises(SemiSupervisedError) as caught:
        preprocessed_base("Dataset5_X")
    assert str(caught.value).startswith("There is no dataset Dataset5_X. Looked in:\n  - nnUNet_raw=")
    assert "nnUNetv2_plan" not in str(caught.value)
    (tmp_path / "nnUNet_raw" / "Dataset5_X").mkdir()
    with pytest.raises(SemiSupervisedError, match="Run: nnUNetv2_plan_and_preprocess -d 5$"):
        preprocessed_base("Dataset5_X")


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


@pytest.mark.parametrize(
    ("configurations", "problem"),
    [
        ({"a": {"inherits_from": "b"}}, 'configuration a inherits from "b", which is not there'),
        (
            {"a": {"inherits_from": "b"}, "b": {"inherits_from": "a"}},
            "configuration a inherits from itself: a -> b -> a",
        ),
        ({"a": {"inherits_from": ["a"]}}, "which is not there"),
        ({"a": 3}, "configurations that are not dictionaries: a"),
    ],
)
def test_plans_that_nnunet_could_not_use(tmp_path, configurations, problem):
    plans = {"plans_name": "p", "configurations": configurations}
    base = tmp_path / "Dataset004_Toy"
    base.mkdir()
    (base / "p.json").write_text(json.dumps(plans))
    with pytest.raises(SemiSupervisedError, match=r"p.json cannot be used:") as caught:
        load_plans(str(base), "p")
    assert problem in str(caught.value)
    assert str(caught.value).endswith("plan again: nnUNetv2_plan_and_preprocess -d 4")
    (base / "dataset_fingerprint.json").touch()  # nnU-Net would go on from it, whatever images there are now
    with pytest.raises(SemiSupervisedError, match="plan again: nnUNetv2_plan_and_preprocess -d 4 --clean "):
        load_plans(str(base), "p")


def test_labelled_cases(tmp_path, monkeypatch):
    base = make_planned(tmp_path, monkeypatch)
    assert labeled_cases(str(base), PLANS) == CASES


def test_nothing_is_preprocessed(tmp_path, monkeypatch):
    base = make_planned(tmp_path, monkeypatch, configurations=[])
    with pytest.raises(
        SemiSupervisedError, match=f"nnUNetv2_preprocess -d {int(DATASET[7:10])} -plans_name nnUNetPlans"
    ):
        labeled_cases(str(base), PLANS)


def test_other_files_are_no_cases(tmp_path, monkeypatch):
    base = make_planned(tmp_path, monkeypatch)
    (base / "nnUNetPlans_2d" / ".DS_Store").touch()
    assert labeled_cases(str(base), PLANS) == CASES
    for file in (base / "nnUNetPlans_2d").iterdir():  # what is left after an interruption or a clean-up
        if file.suffix != ".pkl":
            file.unlink()
    assert labeled_cases(str(base), PLANS) == CASES
    (base / "nnUNetPlans_2d" / ".DS_Store").touch()
    assert labeled_cases(str(base), PLANS) == CASES


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
