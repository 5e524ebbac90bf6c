"""The folds of training runs without a split: what there must be, and how splits_final.json is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_ssl.data.nnunet_folds import check_fold, folds_to_write, nnunet_folds, write_folds
from nnunet_ssl.errors import SemiSupervisedError
from tests.helpers_splits import CASES, PLANS, SUBJECTS, make_planned, write_nnunet_folds


def written(base: Path, cases: list[str], groups: dict[str, str], number: int = 0) -> list[dict[str, list[str]]]:
    return json.loads(Path(write_folds(str(base), folds_to_write(str(base), cases, groups, number, ""))).read_text())


@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_as_many_folds_as_cases_allow(tmp_path, number):
    folds = written(tmp_path, CASES[:number], {})
    assert len(folds) == number
    assert sorted(case for fold in folds for case in fold["val"]) == CASES[:number]
    assert all(sorted(fold["train"] + fold["val"]) == CASES[:number] for fold in folds)


def test_five_are_those_of_nnunet(tmp_path):
    assert written(tmp_path, CASES, {}) == json.loads(
        json.dumps(generate_crossval_split(CASES, seed=12345, n_splits=5))
    )


def test_no_subject_is_divided(tmp_path):
    folds = written(tmp_path, CASES[:6], SUBJECTS)  # three subjects
    assert len(folds) == 3
    for fold in folds:
        assert not {SUBJECTS[c] for c in fold["train"]} & {SUBJECTS[c] for c in fold["val"]}


def test_what_is_there_is_never_replaced(tmp_path):
    path = write_nnunet_folds(tmp_path, [(CASES[1:3], CASES[:1])])
    before = path.read_bytes()
    with pytest.raises(SemiSupervisedError, match=r"is there already, with other folds(.|\n)*Leave out --folds"):
        folds_to_write(str(tmp_path), CASES[:3], {}, 3, "")
    assert path.read_bytes() == before
    path.unlink()
    assert written(tmp_path, CASES[:3], {}) == written(tmp_path, CASES[:3], {})  # the same folds again


@pytest.mark.parametrize(
    ("number", "words"), [(1, "1 folds: at least 2"), (-1, "-1 folds"), (4, "3 cases are too few")]
)
def test_numbers_that_cannot_be(tmp_path, number, words):
    with pytest.raises(SemiSupervisedError, match=words):
        folds_to_write(str(tmp_path), CASES[:3], {}, number, "")


def test_fewer_than_five_cases_need_a_file(tmp_path, monkeypatch):
    base = make_planned(tmp_path, monkeypatch, CASES[:3])
    with pytest.raises(SemiSupervisedError) as caught:
        check_fold(PLANS, "3d_fullres", 0)
    message = str(caught.value)
    there_is_no = f"there is no {base / 'splits_final.json'}."
    assert f"3 labelled cases are too few for nnU-Net's 5 folds, and {there_is_no}" in message
    assert "nnUNetv2_train 4 CONFIGURATION all -tr TRAINER" in message
    assert "nnunet_ssl splits -d 4 --folds 3" in message
    check_fold(PLANS, "3d_fullres", "all")
    written(base, CASES[:3], {})
    for fold in range(3):
        check_fold(PLANS, "3d_fullres", fold)


def test_one_case_is_for_fold_all_alone(tmp_path):
    with pytest.raises(SemiSupervisedError, match=r"1 labelled case is too few(.|\n)* all ") as caught:
        nnunet_folds(str(tmp_path / "Dataset004_Toy"), CASES[:1])
    assert "--folds" not in str(caught.value)


@pytest.mark.parametrize("fold", [5, -1])
def test_a_fold_that_there_is_not(tmp_path, monkeypatch, fold):
    base = make_planned(tmp_path, monkeypatch)
    check_fold(PLANS, "3d_fullres", 4)
    with pytest.raises(SemiSupervisedError, match=f"cross-validation has no fold {fold}. Folds: 0, 1, 2, 3, 4."):
        check_fold(PLANS, "3d_fullres", fold)
    path = write_nnunet_folds(base, [(CASES[1:], CASES[:1])])
    with pytest.raises(SemiSupervisedError, match=rf"{path} has no fold 1\. Folds: 0\."):
        check_fold(PLANS, "3d_fullres", 1)


@pytest.mark.parametrize(
    ("train", "val", "words"),
    [
        (CASES[:2], [], "no validation case"),
        ([], CASES[:2], "no training case"),
        (["gone", *CASES[:2]], CASES[2:4], "not among the preprocessed labelled cases: gone"),
        (CASES[:3], CASES[2:4], "in both train and val: toy_03"),
    ],
)
def test_what_splits_refuses_training_refuses(tmp_path, monkeypatch, train, val, words):
    write_nnunet_folds(make_planned(tmp_path, monkeypatch), [(train, val)])
    with pytest.raises(SemiSupervisedError, match=f"fold 0: {words}"):
        check_fold(PLANS, "3d_fullres", 0)
