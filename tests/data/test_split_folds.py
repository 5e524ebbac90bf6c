"""Folds: nnU-Net's own, or made like nnU-Net's with subjects kept together."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_ssl.data.split_folds import TrainVal, make_folds, read_folds
from nnunet_ssl.errors import SemiSupervisedError
from tests.helpers_splits import CASES, REPEATABLE, SUBJECTS, write_nnunet_folds


def test_without_groups_they_are_those_of_nnunet():
    expected = generate_crossval_split(sorted(CASES), seed=12345, n_splits=5)  # as in nnUNetTrainer.do_split
    folds = make_folds(list(reversed(CASES)), {})
    assert [(f.train, f.val) for f in folds] == [(list(e["train"]), list(e["val"])) for e in expected]
    assert all(type(case) is str for fold in folds for case in fold.train + fold.val)  # not numpy.str_


@REPEATABLE
@given(st.lists(st.integers(1, 4), min_size=5, max_size=15))
def test_groups_are_undivided_and_every_case_is_validated_once(sizes):
    groups = {f"c{s}_{i}": f"s{s}" for s, size in enumerate(sizes) for i in range(size)}
    folds = make_folds(list(groups), groups)
    assert sorted(case for fold in folds for case in fold.val) == sorted(groups)
    for fold in folds:
        assert sorted(fold.train + fold.val) == sorted(groups)
        assert not {groups[c] for c in fold.train} & {groups[c] for c in fold.val}


@pytest.mark.parametrize(("cases", "groups", "words"), [(CASES[:4], {}, "4 cases"), (CASES[:8], SUBJECTS, "4 groups")])
def test_too_few(cases, groups, words):
    with pytest.raises(SemiSupervisedError, match=f"{words} are too few for 5 folds.*\n.*splits_final.json"):
        make_folds(cases, groups)


@pytest.mark.parametrize(
    ("folds", "words"),
    [
        ([(["toy_01", "new"], ["toy_02", "old"])], ["fold 0: not among the preprocessed labelled cases: new, old"]),
        ([(["toy_01"], ["toy_02"]), (["toy_01", "toy_03"], ["toy_03"])], ["fold 1: in both train and val: toy_03"]),
        ([(["toy_01", "toy_01"], ["toy_02"])], ["fold 0: more than once: toy_01"]),
        ([([], ["toy_02"])], ["fold 0: no training case"]),
        ([], ["no fold"]),
    ],
)
def test_unusable_splits_final(tmp_path, folds, words):
    path = write_nnunet_folds(tmp_path, folds)
    with pytest.raises(SemiSupervisedError) as caught:
        read_folds(str(path), CASES, {})
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_training_cases_may_be_named_several_times_where_the_fold_says_so(tmp_path):
    """nnU-Net draws them as often; a case that is validated twice is still a mistake."""
    path = tmp_path / "splits_final.json"
    fold = {"train": ["toy_01", "toy_01", "toy_03"], "val": ["toy_02"], "repeats": True}
    path.write_text(json.dumps([fold]))
    assert read_folds(str(path), CASES, {}) == [TrainVal(fold["train"], fold["val"], True)]
    path.write_text(json.dumps([{**fold, "val": ["toy_02", "toy_02"]}]))
    with pytest.raises(SemiSupervisedError, match="fold 0: more than once: toy_02"):
        read_folds(str(path), CASES, {})


@pytest.mark.parametrize("content", ["{", '{"train": []}', "[1]", '[{"train": []}]'])
def test_another_format(tmp_path, content):
    path = tmp_path / "splits_final.json"
    path.write_text(content)
    with pytest.raises(SemiSupervisedError, match="a list of"):
        read_folds(str(path), CASES, {})


def test_cases_that_are_no_text_and_parts_that_are_no_list(tmp_path):
    path = tmp_path / "splits_final.json"
    path.write_text('[{"train": [1, "toy_01", 2], "val": "toy_02"}, {"train": ["toy_01"], "val": [null]}]')
    with pytest.raises(SemiSupervisedError) as caught:
        read_folds(str(path), CASES, {})
    assert str(caught.value).splitlines()[1:-1] == [
        '  - fold 0: "train": case identifiers must be text in quotes: 1, 2',
        "  - fold 0: \"val\" must be a list of case identifiers, it is 'toy_02'",
        '  - fold 1: "val": case identifiers must be text in quotes: None',
    ]


def test_all_divided_groups_are_listed(tmp_path):
    path = write_nnunet_folds(tmp_path, [(CASES[1:5], [*CASES[:1], *CASES[5:6]]), (CASES[2:], CASES[:2])])
    with pytest.raises(SemiSupervisedError, match="fold 0: subject1, subject3\n") as caught:
        read_folds(str(path), CASES, SUBJECTS)
    assert "fold 1" not in str(caught.value)
    assert json.loads(path.read_text())[0]["train"] == CASES[1:5]
