"""Making splits: names, nesting, subjects; and the whole command's function on a preprocessed folder."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from nnunet_ssl.data import split_making
from nnunet_ssl.data import splits as splits_module
from nnunet_ssl.data.fold_rules import fold_problems
from nnunet_ssl.data.split_folds import TrainVal
from nnunet_ssl.data.split_making import Request, create_splits, first_cases, make_split, plan_requests
from nnunet_ssl.data.splits import Split, load_fold, read_splits
from nnunet_ssl.errors import SemiSupervisedError
from tests.helpers_splits import CASES, REPEATABLE, SUBJECTS, edit, make_planned, write_nnunet_folds


@st.composite
def datasets(draw) -> tuple[list[TrainVal], dict[str, str]]:
    """Folds over a few cases and, for some, subjects of one to several cases that the folds keep together."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=3, max_size=12))
    subjects = {f"c{s}_{i}": f"s{s}" for s, size in enumerate(sizes) for i in range(size)}
    held_out = draw(st.lists(st.sampled_from(range(len(sizes))), min_size=1, max_size=3))
    folds = []
    for subject in held_out:
        val = [case for case, owner in subjects.items() if owner == f"s{subject}"]
        folds.append(TrainVal([case for case in subjects if case not in val], val))
    return folds, subjects if draw(st.booleans()) else {}


fractions = st.floats(0.01, 1.0)
seeds = st.integers(0, 2**32 - 1)


@REPEATABLE
@given(datasets(), fractions, fractions, st.integers(1, 5), seeds)
def test_smaller_is_contained_in_larger(dataset, one, other, count, seed):
    folds, groups = dataset
    count = min(count, *(len(fold.train) for fold in folds))
    splits = [
        make_split(request, folds, groups, seed)
        for request in (Request("a", fraction=one), Request("b", fraction=other), Request("c", count=count))
    ]
    for parts in zip(*(split.folds for split in splits), strict=True):
        ordered = sorted((set(fold.labeled) for fold in parts), key=len)
        assert ordered[0] <= ordered[1] <= ordered[2]


@REPEATABLE
@given(datasets(), fractions, seeds)
def test_parts_are_disjoint_complete_and_keep_subjects_together(dataset, fraction, seed):
    folds, groups = dataset
    for fold, given_fold in zip(
        make_split(Request("x", fraction=fraction), folds, groups, seed).folds, folds, strict=True
    ):
        known = given_fold.train + given_fold.val
        assert fold_problems(fold, groups, known) == []
        assert sorted(fold.labeled + fold.unlabeled) == sorted(given_fold.train)
        assert fold.val == sorted(given_fold.val)
        parts = {name: {groups.get(c, c) for c in getattr(fold, name)} for name in ("labeled", "unlabeled", "val")}
        assert not parts["labeled"] & parts["unlabeled"]
        assert not (parts["labeled"] | parts["unlabeled"]) & parts["val"]


@REPEATABLE
@given(datasets(), fractions, seeds)
def test_number_of_labelled_cases(dataset, fraction, seed):
    folds, groups = dataset
    for fold, given_fold in zip(
        make_split(Request("x", fraction=fraction), folds, groups, seed).folds, folds, strict=True
    ):
        wanted = max(1, round(fraction * len(given_fold.train)))
        assert len(fold.labeled) >= wanted
        if not groups:
            assert len(fold.labeled) == wanted
        else:  # the group that was added last was needed
            assert len(fold.labeled) < wanted + max(list(groups.values()).count(g) for g in groups.values())


@REPEATABLE
@given(datasets(), fractions, seeds, st.randoms(use_true_random=False))
def test_order_of_the_input_does_not_matter(dataset, fraction, seed, random):
    folds, groups = dataset
    shuffled = [TrainVal(random.sample(f.train, len(f.train)), random.sample(f.val, len(f.val))) for f in folds]
    request = Request("x", fraction=fraction)
    assert make_split(request, folds, groups, seed) == make_split(request, shuffled, groups, seed)


def test_the_order_is_the_same_on_every_machine():
    """Frozen: a new NumPy or a change of ours must not change the splits of published results."""
    assert first_cases(CASES, {}, 0, 0, 3) == {"toy_03", "toy_13", "toy_23"}
    assert first_cases(CASES, {}, 7, 2, 3) == {"toy_11", "toy_19", "toy_24"}
    assert first_cases(CASES, {}, 0, 1, 3) != first_cases(CASES, {}, 0, 0, 3)
    assert first_cases(CASES, {}, 1, 0, 3) != first_cases(CASES, {}, 0, 0, 3)


def test_names():
    requests = plan_requests([0.1, 0.05, 0.025, 0.07, 1.0], [6], {"mine": ["a"]})
    assert [r.name for r in requests] == ["l10", "l5", "l2.5", "l7", "l100", "n6", "mine"]
    assert [r.name for r in plan_requests([0.1], [6], {"mine": ["a"]}, ["x", "y", "z"])] == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, ["nothing asked for"]),
        (
            {"fractions": [0.0, 1.5, float("nan")], "counts": [0]},
            ["fraction 0.0", "fraction 1.5", "fraction nan", "count 0"],
        ),
        ({"fractions": [0.1, 0.2], "names": ["a"]}, ["1 names for 2 splits (l10, l20)"]),
        ({"fractions": [0.1, 0.1]}, ['"l10" is given 2 times']),
        ({"fractions": [0.1], "names": ["a__b"]}, ['"a__b"', "double underscore"]),
        ({"fractions": [0.1], "names": ["../a"]}, ['"../a"']),
        ({"fractions": [0.1], "names": ["a_"]}, ['"a_"']),
        ({"fractions": [0.1], "seed": -1}, ["seed -1"]),
    ],
)
def test_unusable_requests(arguments, words):
    with pytest.raises(SemiSupervisedError) as caught:
        plan_requests(**arguments)
    for word in words:
        assert word in str(caught.value)


def test_count_larger_than_a_training_set():
    folds = [TrainVal(["a", "b"], ["c"]), TrainVal(["a"], ["c"])]
    with pytest.raises(SemiSupervisedError, match=r"2 labelled cases are more.* of fold 1 \(1\)\."):
        make_split(Request("n2", count=2), folds, {}, 0)


def test_fraction_of_counts_and_lists_is_their_share():
    folds = [TrainVal(["a", "b", "c", "d"], ["e"]), TrainVal(["b", "c", "d", "e"], ["a"])]
    assert make_split(Request("n1", count=1), folds, {}, 0).fraction == 0.25
    given_list = make_split(Request("list", cases=["a", "b"]), folds, {}, 0)
    assert (given_list.fraction, given_list.seed, given_list.count) == (3 / 8, None, None)
    assert [fold.labeled for fold in given_list.folds] == [["a", "b"], ["b"]]


class TestCreateSplits:
    @pytest.fixture
    def base(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        return make_planned(tmp_path, monkeypatch)

    @pytest.fixture
    def groups_file(self, tmp_path: Path) -> str:
        path = tmp_path / "groups.json"
        path.write_text(json.dumps(SUBJECTS))
        return str(path)

    def test_splits_of_several_calls_are_kept_and_nested(self, base):
        create_splits(4, fractions=[0.1, 0.25])
        create_splits("4", counts=[7])
        splits = read_splits(str(base))
        assert list(splits.splits) == ["l10", "l25", "n7"]
        for fold in range(5):
            small, middle, large = (load_fold(str(base), name, fold, CASES) for name in splits.splits)
            assert set(small.labeled) < set(middle.labeled) < set(large.labeled)
            assert small.val == middle.val == large.val
            assert sorted(small.labeled + small.unlabeled + small.val) == CASES
        assert not (base / "splits_final.json").exists()

    def test_a_repeated_call_changes_nothing(self, base):
        create_splits(4, fractions=[0.1])
        before = (base / "splits_ssl.json").stat().st_mtime_ns
        assert create_splits(4, fractions=[0.1]).unchanged == ["l10"]
        assert (base / "splits_ssl.json").stat().st_mtime_ns == before

    def test_another_split_of_the_same_name_needs_overwrite(self, base):
        create_splits(4, fractions=[0.1, 0.25])
        before = read_splits(str(base))
        with pytest.raises(SemiSupervisedError, match=r"(?s)already holds.*- l10\n.*--overwrite"):
            create_splits(4, fractions=[0.1], seed=1)
        assert read_splits(str(base)) == before
        create_splits(4, fractions=[0.1], seed=1, overwrite=True)
        after = read_splits(str(base))
        assert after.splits["l10"].seed == 1
        assert after.splits["l25"] == before.splits["l25"]

    def test_folds_of_nnunet_are_used_and_left_alone(self, base):
        path = write_nnunet_folds(base, [(CASES[4:], CASES[:4])])
        before = path.read_bytes()
        written = create_splits(4, fractions=[0.1])
        assert (written.folds_from, written.own_folds) == (str(path), False)
        assert [fold.val for fold in read_splits(str(base)).splits["l10"].folds] == [CASES[:4]]
        assert path.read_bytes() == before

    def test_groups_are_stored_and_hold_for_later_calls(self, base, groups_file):
        assert create_splits(4, fractions=[0.25], groups_file=groups_file).own_folds
        create_splits(4, counts=[6])
        splits = read_splits(str(base))
        assert splits.groups == SUBJECTS
        for split in splits.splits.values():
            for fold in split.folds:
                owners = [{SUBJECTS[c] for c in part} for part in (fold.labeled, fold.unlabeled, fold.val)]
                assert sum(map(len, owners)) == 12
                assert len(set.union(*owners)) == 12
        assert [len(fold.labeled) for fold in splits.splits["n6"].folds] == [6] * 5

    def test_groups_that_come_later_must_fit_the_kept_splits(self, base, groups_file):
        create_splits(4, fractions=[0.1])
        before = (base / "splits_ssl.json").read_bytes()
        with pytest.raises(SemiSupervisedError, match=r'split "l10", fold 0: groups divided between'):
            create_splits(4, fractions=[0.25], groups_file=groups_file)
        assert (base / "splits_ssl.json").read_bytes() == before
        create_splits(4, fractions=[0.1, 0.25], groups_file=groups_file, overwrite=True)
        assert read_splits(str(base)).groups == SUBJECTS

    def test_stored_groups_must_cover_new_cases(self, base, groups_file):
        create_splits(4, fractions=[0.25], groups_file=groups_file)
        for configuration in ("2d", "3d_fullres"):
            (base / f"nnUNetPlans_{configuration}" / "new.b2nd").touch()
        with pytest.raises(SemiSupervisedError, match=r"none for these labelled cases:\n  - new\n"):
            create_splits(4, fractions=[0.5])

    def test_existing_folds_that_divide_groups(self, base, groups_file):
        write_nnunet_folds(base, [(CASES[2:], CASES[:2]), (CASES[3:], CASES[:3])])
        with pytest.raises(SemiSupervisedError, match=r"fold 1: subject2\n.*--ignore-existing-folds"):
            create_splits(4, fractions=[0.25], groups_file=groups_file)
        written = create_splits(4, fractions=[0.25], groups_file=groups_file, ignore_existing_folds=True)
        assert written.own_folds
        assert len(written.new["l25"].folds) == 5

    def test_given_lists(self, base, tmp_path):
        file = tmp_path / "protocol.json"
        file.write_text(json.dumps({"p5": CASES[:2], "p20": CASES[:6]}))
        write_nnunet_folds(base, [(CASES[:20], CASES[20:])])
        create_splits(4, labeled_from=str(file))
        assert load_fold(str(base), "p20", 0).labeled == CASES[:6]
        assert load_fold(str(base), "p5", 0).unlabeled == CASES[2:20]
        file.write_text(json.dumps(CASES[20:22]))  # validation cases only
        with pytest.raises(SemiSupervisedError, match='split "list", fold 0: no labelled case'):
            create_splits(4, labeled_from=str(file))

    def test_other_validation_cases_are_reported(self, base):
        create_splits(4, fractions=[0.1])
        write_nnunet_folds(base, [(CASES[4:], CASES[:4])])
        assert create_splits(4, fractions=[0.2]).other_folds == ["l10"]

    def test_an_edited_file_is_not_extended(self, base):
        create_splits(4, fractions=[0.1])
        edit(base, lambda content: content["splits"]["l10"].update(seed=5), rehash=False)
        with pytest.raises(SemiSupervisedError, match="edited by hand"):
            create_splits(4, fractions=[0.2])

    def test_split_equality_covers_what_is_stored(self):
        assert Split(0.1, 0, []) != Split(0.1, 0, [], count=1)


def test_commands_at_the_same_time_lose_nothing(tmp_path, monkeypatch):
    base = make_planned(tmp_path, monkeypatch)
    write_splits = split_making.write_splits

    def slowly(*args):
        time.sleep(0.1)  # between reading and writing, where the others would read the old file
        return write_splits(*args)

    monkeypatch.setattr(split_making, "write_splits", slowly)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda count: create_splits(4, counts=[count]), (2, 3, 4, 5)))
    assert sorted(read_splits(str(base)).splits) == ["n2", "n3", "n4", "n5"]


def test_another_command_that_hangs(tmp_path, monkeypatch):
    base = make_planned(tmp_path, monkeypatch)
    monkeypatch.setattr(splits_module, "PATIENCE", 0.05)
    with (
        FileLock(base / splits_module.LOCK_FILE),
        pytest.raises(SemiSupervisedError, match="Another `nnunet_ssl splits` has been writing"),
    ):
        create_splits(4, counts=[2])


def test_every_count_that_is_too_large_is_said(tmp_path, monkeypatch):
    base = make_planned(tmp_path, monkeypatch)
    write_nnunet_folds(base, [(CASES[:4], CASES[4:6]), (CASES[2:8], CASES[:2])])
    with pytest.raises(SemiSupervisedError) as caught:
        create_splits(4, counts=[2, 5, 9])
    assert str(caught.value).splitlines()[1:] == [
        "  - n5: 5 labelled cases are more than the training cases of fold 0 (4)",
        "  - n9: 9 labelled cases are more than the training cases of fold 0 (4), fold 1 (6)",
    ]
    assert not (base / "splits_ssl.json").exists()
