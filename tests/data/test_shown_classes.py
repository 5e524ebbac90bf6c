"""Classes that the labelled cases of a fold do not show."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_ssl.data.shown_classes import foreground_names, shown_classes, shown_in, unshown_lines
from nnunet_ssl.data.splits import Fold
from nnunet_ssl.errors import SemiSupervisedError
from tests.helpers_splits import CASES, LABELS, PLANS, make_planned, show
from tests.tiny import Tiny, plans_of

JSON = {"labels": LABELS}


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    base = make_planned(tmp_path, monkeypatch, CASES[:5])
    for case in CASES[:3]:
        show(base / "nnUNetPlans_3d_fullres", case, 1)
    return base


def test_the_withheld_and_the_validation_cases_that_have_it_are_named(base):
    folds = [Fold(CASES[:2], CASES[2:4], CASES[4:5]), Fold(CASES[3:5], CASES[:2], CASES[2:3])]
    (line,) = unshown_lines(folds, shown_in(str(base), PLANS, JSON))
    having = "withheld cases that have it: toy_04; validation cases that have it: toy_05"
    assert line == f"fold 0: no labelled case shows inner; {having}"


def test_a_class_of_no_case_is_told_once(base):
    for case in CASES[3:5]:
        show(base / "nnUNetPlans_3d_fullres", case, 1)
    shown = shown_in(str(base), PLANS, JSON)
    assert shown.nowhere == ["inner"]
    assert unshown_lines([Fold(CASES[:2], CASES[2:4], CASES[4:5])], shown) == []


def test_damaged_properties_are_all_listed(base):
    for case in CASES[1:3]:
        (base / "nnUNetPlans_3d_fullres" / f"{case}.pkl").write_bytes(b"x")
    with pytest.raises(SemiSupervisedError, match=r"toy_02.pkl(.|\n)*toy_03.pkl(.|\n)*nnUNetv2_preprocess"):
        shown_in(str(base), PLANS, JSON)


@pytest.mark.parametrize("regions", [False, True])
def test_what_nnunet_preprocessed(make_dataset, regions):
    labels = {"background": 0, "whole": (1, 2), "box": 2} if regions else {"background": 0, "ball": 1, "box": 2}
    recipe = {"labels": {**labels, "ignore": 3}, "regions_class_order": (1, 2) if regions else None}
    folder = make_dataset(preprocess=False, **recipe) / "nnUNetPlans_3d_fullres"
    content = {"labels": {k: list(v) if isinstance(v, tuple) else v for k, v in recipe["labels"].items()}}
    content |= {"regions_class_order": [1, 2]} if regions else {}
    names = foreground_names(plans_of(Tiny(**recipe)), content)
    expected = {"whole", "box"} if regions else {"ball", "box"}
    assert set(names.values()) == expected
    assert shown_classes(str(folder), ["tiny_000"], names, plans_of(Tiny(**recipe))) == {"tiny_000": expected}
