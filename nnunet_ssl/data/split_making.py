"""Making splits: in each fold of nnU-Net nested sets of labelled cases, whole subjects at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nnunet_ssl.data.folders import labeled_cases, load_plans, name_problem, preprocessed_base
from nnunet_ssl.data.split_folds import NNUNET_FOLDS, TrainVal, make_folds, read_folds
from nnunet_ssl.data.split_inputs import read_case_lists, read_groups
from nnunet_ssl.data.splits import Fold, Split, Splits, locked_splits, splits_path, stored_splits, write_splits
from nnunet_ssl.errors import complain

LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Request:
    """One split to make: exactly one of fraction (of the training cases), count and cases is set."""

    name: str
    fraction: float | None = None
    count: int | None = None
    cases: list[str] | None = None


@dataclass(frozen=True)
class Written:
    """What :func:`create_splits` did, for the report to the user.

    Attributes:
        path: of splits_ssl.json.
        folds_from: where the folds come from, in words.
        new: the splits that were asked for.
        unchanged: names of those that stood in the file already.
        other_folds: names of kept splits with other validation cases; results on them are not comparable.
        own_folds: the folds are not taken from nnU-Net, which uses others for plans without a split.
    """

    path: str
    folds_from: str
    new: dict[str, Split]
    unchanged: list[str]
    other_folds: list[str]
    own_folds: bool


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
        ignore_existing_folds: make folds even if there is a splits_final.json.
        overwrite: replace splits of the same name.

    Raises:
        SemiSupervisedError: see the functions named here; nothing is written then.
    """
    base = preprocessed_base(dataset_name_or_id)
    cases = labeled_cases(base, load_plans(base, plans_identifier))
    lists = read_case_lists(labeled_from, cases) if labeled_from else {}
    requests = plan_requests(fractions, counts, lists, names, seed)
    with locked_splits(base):
        return _create(base, cases, requests, seed, groups_file, ignore_existing_folds, overwrite)


def _create(
    base: str,
    cases: Sequence[str],
    requests: Sequence[Request],
    seed: int,
    groups_file: str | None,
    ignore_existing_folds: bool,
    overwrite: bool,
) -> Written:
    """From reading the old splits to writing the new ones."""
    old = stored_splits(base)
    groups = read_groups(groups_file, cases) if groups_file else _stored_groups(old, cases)
    existing = os.path.join(base, NNUNET_FOLDS)
    if os.path.isfile(existing) and not ignore_existing_folds:
        folds, folds_from, own_folds = read_folds(existing, cases, groups), existing, False
    else:
        folds, folds_from = make_folds(cases, groups), "nnU-Net's own function" + (" on the groups" if groups else "")
        own_folds = os.path.isfile(existing) or folds != make_folds(cases, {})
    problems = [problem for request in requests if (problem := _count_problem(request, folds))]
    if problems:
        raise complain("These splits cannot be made:", problems)
    new = {request.name: make_split(request, folds, groups, seed) for request in requests}
    validation = [fold.val for fold in next(iter(new.values())).folds]
    return Written(
        path=_add_splits(base, old, new, groups, overwrite),
        folds_from=folds_from,
        new=new,
        unchanged=[name for name, split in new.items() if old.splits.get(name) == split],
        other_folds=[n for n, s in old.splits.items() if n not in new and [fold.val for fold in s.folds] != validation],
        own_folds=own_folds,
    )


def plan_requests(
    fractions: Sequence[float] = (),
    counts: Sequence[int] = (),
    lists: Mapping[str, list[str]] | None = None,
    names: Sequence[str] = (),
    seed: int = 0,
) -> list[Request]:
    """Requests with their names: 0.1 -> l10, 0.025 -> l2.5, count 6 -> n6; ``names`` replaces all, in that order.

    Raises:
        SemiSupervisedError: nothing asked for, values out of range, unusable or repeated names.
    """
    lists = lists or {}
    defaults = [*(f"l{100 * f:g}" for f in fractions), *(f"n{c}" for c in counts), *lists]
    problems = [f"fraction {f}: must be above 0 and at most 1" for f in fractions if not 0 < f <= 1]
    problems += [f"count {c}: must be at least 1" for c in counts if c < 1]
    if not 0 <= seed <= LARGEST_SEED:
        problems.append(f"seed {seed}: must lie between 0 and {LARGEST_SEED}")
    if names and len(names) != len(defaults):
        problems.append(f"{len(names)} names for {len(defaults)} splits ({', '.join(defaults)})")
    chosen = list(names or defaults)
    problems += [problem for problem in map(name_problem, chosen) if problem]
    problems += [f'the name "{n}" is given {chosen.count(n)} times' for n in sorted(set(chosen)) if chosen.count(n) > 1]
    if not defaults:
        problems.append("nothing asked for; give --fractions, --counts or --labeled-from")
    if problems:
        raise complain("These splits cannot be made:", problems)
    requests = [Request("", fraction=f) for f in fractions] + [Request("", count=c) for c in counts]
    requests += [Request("", cases=ids) for ids in lists.values()]
    return [replace(request, name=name) for name, request in zip(chosen, requests, strict=True)]


def make_split(request: Request, folds: Sequence[TrainVal], groups: Mapping[str, str], seed: int) -> Split:
    """One split over all folds.

    A fraction f labels max(1, round(f n)) of a fold's n training cases, a count that many. With groups, whole groups
    are added in the seeded order until there are at least so many. The order depends on the seed, the index of the
    fold and its training groups alone, hence any smaller request is contained in any larger one.

    Raises:
        SemiSupervisedError: a count larger than a fold's training set.
    """
    if problem := _count_problem(request, folds):
        raise complain(f"This split cannot be made: {problem}.")
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


def _count_problem(request: Request, folds: Sequence[TrainVal]) -> str:
    small = [f"fold {i} ({len(f.train)})" for i, f in enumerate(folds) if len(f.train) < (request.count or 0)]
    if not small:
        return ""
    return f"{request.name}: {request.count} labelled cases are more than the training cases of {', '.join(small)}"


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
