"""The folds that a split divides further: nnU-Net's splits_final.json, or folds made by nnU-Net's own function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_ssl.data.text_files import read_json
from nnunet_ssl.errors import SemiSupervisedError, complain
from nnunet_ssl.system.failures import raise_failure

NNUNET_FOLDS = "splits_final.json"
FORM = 'a list of {"train": [...], "val": [...]}'
OWN_FOLDS = f"Write your folds to {NNUNET_FOLDS}, beside the plans: {FORM}."
NNUNET_SEED, NNUNET_NUMBER_OF_FOLDS = 12345, 5  # as in nnUNetTrainer.do_split


REPEATS = "repeats"  # of a fold in splits_final.json: its training cases may be named several times, drawn as often


@dataclass(frozen=True)
class TrainVal:
    """One fold before it is divided into labelled and unlabelled cases. ``repeats``: training cases may come again."""

    train: list[str]
    val: list[str]
    repeats: bool = False


def make_folds(
    cases: Sequence[str], groups: Mapping[str, str], number: int = NNUNET_NUMBER_OF_FOLDS, remedy: str = ""
) -> list[TrainVal]:
    """Folds of nnU-Net's own function with nnU-Net's own seed, applied to the subjects, so that none is divided.

    Without groups and another number these are the folds that nnU-Net itself would make.

    Args:
        cases: labelled cases.
        groups: case -> subject, for every case or for none.
        number: of folds.
        remedy: what the error for too few cases advises.

    Raises:
        SemiSupervisedError: fewer groups than folds, or fewer than two folds.
    """
    members: dict[str, list[str]] = {}
    for case in sorted(cases):
        members.setdefault(groups.get(case, case), []).append(case)
    if number < 2:
        raise complain(f"{number} folds: at least 2, for the cases of each are validated by training on the others.")
    if len(members) < number:
        raise complain(f"{counted(len(members), groups)} too few for {number} folds.", remedy=remedy or OWN_FOLDS)
    return [
        TrainVal(
            sorted(case for group in fold["train"] for case in members[str(group)]),
            sorted(case for group in fold["val"] for case in members[str(group)]),
        )
        for fold in generate_crossval_split(sorted(members), seed=NNUNET_SEED, n_splits=number)
    ]


def counted(number: int, groups: Mapping[str, str]) -> str:
    """'3 cases are', '1 group is'."""
    return f"{number} {'group' if groups else 'case'}{' is' if number == 1 else 's are'}"


def most_folds(cases: Sequence[str], groups: Mapping[str, str]) -> int:
    """How many folds nnU-Net's number and the cases, or their subjects, allow; below 2: none."""
    return min(NNUNET_NUMBER_OF_FOLDS, len({groups.get(case, case) for case in cases}))


def fold_number_problem(fold: int | str, number: int) -> str:
    """'no fold 7. Folds: 0, 1, 2.', or nothing for a fold that there is."""
    if type(fold) is int and 0 <= fold < number:  # True is no fold
        return ""
    return f"no fold {fold!r}. Folds: {', '.join(map(str, range(number)))}."


def load_folds(path: str) -> list[TrainVal]:
    """The folds of a splits_final.json as they stand there.

    Raises:
        SemiSupervisedError: absent, unreadable, or another format.
    """
    try:
        content = read_json(path, list, nnunet_reads_it=True)
        parts = [(fold["train"], fold["val"]) for fold in content]
        repeats = [REPEATS in fold for fold in content]
    except SemiSupervisedError as error:
        raise_failure(error)
        raise complain(str(error), remedy=f"nnU-Net writes {FORM} there.") from error
    except (KeyError, TypeError) as error:
        raise complain(f"{path} is not {FORM} ({error!r}).") from error
    problems = [f"fold {i}: {problem}" for i, fold in enumerate(parts) for problem in _form_problems(*fold)]
    if problems:
        raise complain(f"The folds in {path} cannot be used:", problems, "Correct that file.")
    return [TrainVal(list(train), list(val), more) for (train, val), more in zip(parts, repeats, strict=True)]


def read_folds(path: str, cases: Sequence[str], groups: Mapping[str, str]) -> list[TrainVal]:
    """The folds of a splits_final.json, checked against the labelled cases and the groups.

    Raises:
        SemiSupervisedError: another format, unknown or repeated cases, a case or a group in both train and val.
    """
    folds = load_folds(path)
    problems = [] if folds else ["no fold"]
    divided = []
    for index, fold in enumerate(folds):
        problems += [f"fold {index}: {problem}" for problem in _problems(fold, set(cases))]
        both = {groups.get(case, case) for case in fold.train} & {groups.get(case, case) for case in fold.val}
        if both:
            divided.append(f"fold {index}: {', '.join(sorted(both))}")
    if problems:
        raise complain(f"The folds in {path} cannot be used:", problems, "Correct that file, or preprocess the cases.")
    if divided:
        raise complain(
            f"The folds in {path} divide groups between training and validation:",
            divided,
            "Replace that file by folds that keep groups together (before anything is trained), or give "
            "--ignore-existing-folds to make such folds for splits_ssl.json alone.",
        )
    return folds


def _form_problems(train: Any, val: Any) -> list[str]:
    problems = []
    for name, part in (("train", train), ("val", val)):
        if not isinstance(part, list):
            problems.append(f'"{name}" must be a list of case identifiers, it is {part!r}')
        elif others := [case for case in part if not isinstance(case, str)]:
            problems.append(f'"{name}": case identifiers must be text in quotes: {", ".join(map(repr, others))}')
    return problems


def _problems(fold: TrainVal, known: set[str]) -> list[str]:
    times = [*({} if fold.repeats else Counter(fold.train)).items(), *Counter(fold.val).items()]
    found = {
        "not among the preprocessed labelled cases": {*fold.train, *fold.val} - known,
        "in both train and val": {*fold.train} & {*fold.val},
        "more than once": {case for case, number in times if number > 1},
    }
    problems = [f"{what}: {', '.join(sorted(ids))}" for what, ids in found.items() if ids]
    problems += [] if fold.train else ["no training case"]
    return problems + ([] if fold.val else ["no validation case"])  # nnU-Net's loaders cannot draw from nothing
