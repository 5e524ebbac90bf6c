"""What a person asks `nnunet_ssl splits` for: names of splits, the command that makes them, what folds do not allow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from nnunet_ssl.data.folders import name_problem
from nnunet_ssl.data.split_folds import TrainVal
from nnunet_ssl.errors import complain, some

LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Request:
    """One split to make: exactly one of fraction (of the training cases), count and cases is set."""

    name: str
    fraction: float | None = None
    count: int | None = None
    cases: list[str] | None = None


def name_of_fraction(fraction: float) -> str:
    """0.1 -> l10, 0.025 -> l2.5."""
    return f"l{100 * fraction:g}"


def name_of_count(count: int) -> str:
    """6 -> n6."""
    return f"n{count}"


def splits_command(dataset: int, names: Iterable[str] = ()) -> str:
    """The command that makes splits of these names: l10 is a fraction of 0.1, n6 are 6 cases, others are lists.

    Without a name: the one that makes l10, as an example.
    """
    fractions, counts, lists = [], [], []
    for name in names or ["l10"]:
        share = re.fullmatch(r"l(\d+(?:\.\d+)?)", name)
        number = re.fullmatch(r"n(\d+)", name)
        if share and 0 < float(share[1]) <= 100 and name_of_fraction(float(share[1]) / 100) == name:
            fractions.append(f"{float(share[1]) / 100:g}")
        elif number and int(number[1]) > 0 and name_of_count(int(number[1])) == name:
            counts.append(number[1])
        else:
            lists.append(name)
    words = ["nnunet_ssl", "splits", "-d", str(dataset)]
    words += ["--fractions", *fractions] if fractions else []
    words += ["--counts", *counts] if counts else []
    words += ["--labeled-from", f"FILE (with {', '.join(lists)})"] if lists else []
    return " ".join(words)


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
    defaults = [*map(name_of_fraction, fractions), *map(name_of_count, counts), *lists]
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


def request_problem(request: Request, folds: Sequence[TrainVal]) -> str:
    """Why the folds do not allow a split; empty if they do."""
    small = [f"fold {i} ({len(f.train)})" for i, f in enumerate(folds) if len(f.train) < (request.count or 0)]
    if small:
        return f"{request.name}: {request.count} labelled cases are more than the training cases of {', '.join(small)}"
    bare = [f"fold {i}" for i, fold in enumerate(folds) if not _is_trained(request, fold)]
    return f'split "{request.name}", {", ".join(bare)}: no labelled case, none on the list trains there' if bare else ""


def _is_trained(request: Request, fold: TrainVal) -> bool:
    """Whether a given list leaves the fold at least one labelled case."""
    return request.cases is None or not set(request.cases).isdisjoint(fold.train)


def dropped_cases(request: Request, folds: Sequence[TrainVal]) -> list[str]:
    """A line for each fold that does not train on every case of a given list, with the names of those it drops."""
    lines = []
    for index, fold in enumerate(folds):
        dropped = set(request.cases or ()) - set(fold.train)
        validated = sorted(dropped & set(fold.val))
        absent = sorted(dropped - set(fold.val))
        parts = [f"{', '.join(validated)} validate"] if validated else []
        parts += [f"{', '.join(absent)} in no part of the fold"] if absent else []
        if parts:
            number = f"{len(dropped)} of {len(set(request.cases or ()))} listed cases"
            lines.append(f"{request.name}, fold {index}: {number} are not labelled: {'; '.join(parts)}")
    return lines


def request_remedy(requests: Sequence[Request], folds: Sequence[TrainVal]) -> str:
    bare = {i: fold for request in requests for i, fold in enumerate(folds) if not _is_trained(request, fold)}
    if not bare:
        return ""
    lines = [f"fold {i} trains on {some(fold.train)}" for i, fold in bare.items()]
    return "\n".join(["Add a training case of each of these folds to the list:", *lines])
