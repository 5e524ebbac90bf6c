"""Making splits: in each fold of nnU-Net nested sets of labelled cases, whole subjects at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_ssl.data.folders import dataset_id, labeled_cases, load_plans, preprocessed_base
from nnunet_ssl.data.nnunet_folds import folds_to_write, write_folds
from nnunet_ssl.data.split_folds import (
    NNUNET_FOLDS,
    NNUNET_NUMBER_OF_FOLDS,
    TrainVal,
    make_folds,
    most_folds,
    read_folds,
)
from nnunet_ssl.data.split_inputs import read_case_lists, read_groups
from nnunet_ssl.data.split_requests import Request, dropped_cases, plan_requests, request_problem, request_remedy
from nnunet_ssl.data.splits import Fold, Split, Splits, locked_splits, splits_path, stored_splits, write_splits
from nnunet_ssl.errors import complain


@dataclass(frozen=True)
class Written:
    """What :func:`create_splits` did, for the report to the user.

    Attributes:
        path: of splits_ssl.json.
        folds_from: where the folds come from, in words.
        folds: what they are.
        new: the splits that were asked for.
        unchanged: names of those that stood in the file already.
        other_folds: names of kept splits with other validation cases; results on them are not comparable.
        own_folds: the folds are not taken from nnU-Net, which uses others for plans without a split.
        dropped: a line for each list and fold that does not train on all of it, see :func:`dropped_cases`.
    """

    path: str
    folds_from: str
    folds: list[TrainVal]
    new: dict[str, Split]
    unchanged: list[str]
    other_folds: list[str]
    own_folds: bool
    dropped: list[str]


def create_splits(
    dataset_name_or_id: str | int,
    *,
    plans_identifier: str = "nnUNetPlans",
    fractions: Sequence[float] = (),
    counts: Sequence[int] = (),
    labeled_from: str | None = None,
    names: Sequence[str] = (),
    seed: int = 0,
    groups_file: str | None = None,
    number_of_folds: int | None = None,
    ignore_existing_folds: bool = False,
    overwrite: bool = False,
) -> Written:
    """Make splits of a preprocessed dataset and add them to its splits_ssl.json.

    Args:
        plans_identifier: plans whose preprocessed folders tell the labelled cases.
        fractions, counts: of the training cases of each fold, see :func:`make_split`.
        labeled_from: file with given lists of labelled cases, see :func:`read_case_lists`.
        names: of fractions, counts and lists, in that order; empty for default names.
        groups_file: subjects, see :func:`read_groups`; without it those already in splits_ssl.json hold.
        number_of_folds: write a splits_final.json with so many folds first (0: as many as cases or subjects allow, at
            most 5), alone or with splits; with ``ignore_existing_folds`` these folds are for splits_ssl.json alone.
        ignore_existing_folds: make folds even if there is a splits_final.json.
        overwrite: replace splits of the same name.

    Raises:
        SemiSupervisedError: see the functions named here; nothing is written then.
    """
    base = preprocessed_base(dataset_name_or_id)
    cases = labeled_cases(base, load_plans(base, plans_identifier))
    lists = read_case_lists(labeled_from, cases) if labeled_from else {}
    asked = number_of_folds is None or fractions or counts or lists or names
    requests = plan_requests(fractions, counts, lists, names, seed) if asked else []
    with locked_splits(base):
        old = stored_splits(base)
        groups = read_groups(groups_file, cases) if groups_file else _stored_groups(old, cases)
        folds = _folds(base, cases, groups, number_of_folds, ignore_existing_folds)
        return _create(base, old, groups, folds, requests, seed, overwrite)


@dataclass(frozen=True)
class _Folds:
    """The folds that are divided further; see :class:`Written`."""

    folds: list[TrainVal]
    source: str
    own: bool
    to_write: bool = False


def _folds(
    base: str, cases: Sequence[str], groups: Mapping[str, str], number: int | None, ignore_existing: bool
) -> _Folds:
    path, made = os.path.join(base, NNUNET_FOLDS), "nnU-Net's own function" + (" on the groups" if groups else "")
    remedy = _too_few_remedy(base, cases, groups, ignore_existing)
    if number is not None and not ignore_existing:
        return _Folds(folds_to_write(base, cases, groups, number, remedy), path, own=False, to_write=True)
    if os.path.isfile(path) and not ignore_existing:
        return _Folds(read_folds(path, cases, groups), path, own=False)
    number = NNUNET_NUMBER_OF_FOLDS if number is None else number or max(2, most_folds(cases, groups))
    folds = make_folds(cases, groups, number, remedy)
    nnunets = number == NNUNET_NUMBER_OF_FOLDS and not os.path.isfile(path) and folds == make_folds(cases, {})
    return _Folds(folds, made, own=not nnunets)


def _too_few_remedy(base: str, cases: Sequence[str], groups: Mapping[str, str], ignore_existing: bool) -> str:
    number = most_folds(cases, groups)
    if number < 2:
        return (
            "Label more, or train on every label, without validation and without a split, as fold `all`: "
            f"nnUNetv2_train {dataset_id(base)} CONFIGURATION all -tr TRAINER"
        )
    return f"Repeat this command with --folds {number}" + (
        "." if ignore_existing else f": it makes {number} folds and writes them to {NNUNET_FOLDS}, for nnU-Net too."
    )


def _create(
    base: str,
    old: Splits,
    groups: dict[str, str],
    source: _Folds,
    requests: Sequence[Request],
    seed: int,
    overwrite: bool,
) -> Written:
    """From the folds to the written files."""
    folds = source.folds
    problems = [problem for request in requests if (problem := request_problem(request, folds))]
    if problems:
        raise complain("These splits cannot be made:", problems, request_remedy(requests, folds))
    new = {request.name: make_split(request, folds, groups, seed) for request in requests}
    validation = [sorted(fold.val) for fold in folds]
    path = _add_splits(base, old, new, groups, overwrite)
    if source.to_write:
        write_folds(base, folds)
    return Written(
        path=path,
        folds_from=source.source,
        folds=folds,
        new=new,
        unchanged=[name for name, split in new.items() if old.splits.get(name) == split],
        other_folds=[n for n, s in old.splits.items() if n not in new and [fold.val for fold in s.folds] != validation],
        own_folds=source.own,
        dropped=[line for request in requests for line in dropped_cases(request, folds)],
    )


def make_split(request: Request, folds: Sequence[TrainVal], groups: Mapping[str, str], seed: int) -> Split:
    """One split over all folds.

    A fraction f labels max(1, round(f n)) of a fold's n training cases, a count that many. With groups, whole groups
    are added in the seeded order until there are at least so many. The order depends on the seed, the index of the
    fold and its training groups alone, hence any smaller request is contained in any larger one.

    Raises:
        SemiSupervisedError: a count larger than a fold's training set.
    """
    if problem := request_problem(request, folds):
        raise complain(f"This split cannot be made: {problem}.", remedy=request_remedy([request], folds))
    result = []
    for index, fold in enumerate(folds):
        if request.cases is not None:
            labeled = set(request.cases) & set(fold.train)
        else:
            wanted = request.count or max(1, round((request.fraction or 0) * len(fold.train)))
            labeled = first_cases(fold.train, groups, seed, index, wanted)
        result.append(Fold(sorted(labeled), sorted(set(fold.train) - labeled), sorted(fold.val)))
    share = sum(len(fold.labeled) for fold in result) / max(1, sum(len(fold.train) for fold in folds))
    return Split(
        fraction=share if request.fraction is None else request.fraction,
        seed=None if request.cases is not None else seed,
        folds=result,
        count=request.count,
    )


def first_cases(train: Iterable[str], groups: Mapping[str, str], seed: int, fold: int, wanted: int) -> set[str]:
    """The first cases of the seeded order of groups, whole groups, at least ``wanted`` cases."""
    members: dict[str, list[str]] = {}
    for case in train:
        members.setdefault(groups.get(case, case), []).append(case)
    # RandomState, because NumPy guarantees its stream for all versions
    order = np.random.RandomState([seed, fold]).permutation(len(members))
    names, chosen = sorted(members), set[str]()
    for index in order:
        if len(chosen) >= wanted:
            break
        chosen.update(members[names[index]])
    return chosen


def _stored_groups(old: Splits, cases: Sequence[str]) -> dict[str, str]:
    without = sorted(set(cases) - set(old.groups))
    if old.groups and without:
        raise complain(
            "The file already holds groups, but none for these labelled cases:",
            without,
            "Give --groups with the subject of every labelled case.",
        )
    return old.groups


def _add_splits(base: str, old: Splits, new: Mapping[str, Split], groups: Mapping[str, str], overwrite: bool) -> str:
    if not overwrite:
        refuse_other_content(base, old, new, "Choose other names with --names, or replace them with --overwrite.")
    splits = Splits(old.dataset, dict(groups), {**old.splits, **new})
    return splits_path(base) if splits == old else write_splits(base, splits)


def refuse_other_content(base: str, old: Splits, new: Mapping[str, Split], remedy: str = "") -> None:
    """Raise SemiSupervisedError for names that stand for other splits already."""
    taken = [name for name, split in new.items() if name in old.splits and old.splits[name] != split]
    if taken:
        raise complain(
            f"{splits_path(base)} already holds other splits of these names, which trained models may refer to:",
            taken,
            remedy,
        )
