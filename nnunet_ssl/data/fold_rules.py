"""A fold of a split, and what makes it unusable, said once for writing, training, doctor and benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from nnunet_ssl.data.split_requests import splits_command

PARTS = ("labeled", "unlabeled", "val")
UNKNOWN = "unknown, not among the preprocessed labelled cases"


@dataclass(frozen=True)
class Fold:
    """Case identifiers of one fold, disjoint.

    Attributes:
        labeled: training cases whose label is used.
        unlabeled: training cases whose label is withheld.
        val: validation cases, in neither stream.
    """

    labeled: list[str]
    unlabeled: list[str]
    val: list[str]


def fold_problems(fold: Fold, groups: Mapping[str, str], known_cases: Collection[str] | None = None) -> list[str]:
    """Everything that makes a fold unusable, one line per kind, each with all its cases."""
    problems = [f"no {what} case" for what, part in (("labelled", fold.labeled), ("validation", fold.val)) if not part]
    for part in PARTS:
        repeated = [case for case, times in Counter(getattr(fold, part)).items() if times > 1]
        problems += _line(f"more than once in {part}", repeated)
    for first, second in combinations(PARTS, 2):
        one, other = set(getattr(fold, first)), set(getattr(fold, second))
        problems += _line(f"in both {first} and {second}", one & other)
        if groups:
            divided = {groups.get(c, c) for c in one - other} & {groups.get(c, c) for c in other - one}
            problems += _line(f"groups divided between {first} and {second}", divided)
    cases = {case for part in PARTS for case in getattr(fold, part)}
    if groups:
        problems += _line("in no group", cases - set(groups))
    if known_cases is not None:
        problems += _line(UNKNOWN, cases - set(known_cases))
    return problems


def fold_remedy(problems: Iterable[str], dataset: int, names: Iterable[str]) -> str:
    """What to do about :func:`fold_problems` of stored splits of these names."""
    again = f"make the splits again:\n  {splits_command(dataset, names)} --overwrite"
    if any(UNKNOWN in problem for problem in problems):
        command = f"nnUNetv2_preprocess -d {dataset} -c CONFIGURATION -plans_name PLANS"
        return f"Preprocess the unknown cases ({command}), or, where they are gone from the dataset, {again}"
    return f"Look at the folds and lists that the splits were made from, and {again}"


def _line(what: str, cases: Iterable[str]) -> list[str]:
    ordered = sorted(cases)
    return [f"{what}: {', '.join(ordered)}"] if ordered else []
