"""Which cases are kept. Pure functions of scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from nnunet_ssl.errors import complain
from nnunet_ssl.selftrain.settings import NONE, STABILITY, SelfTraining

UNUSUAL = 3.0  # times the largest, or part of the smallest, volume of a class in the labelled cases


class Sureness(Protocol):
    """What :func:`decide` asks of a case. ``shown``: a teacher finds something; ``labeled``: the chosen label does."""

    @property
    def score(self) -> float | None: ...

    @property
    def shown(self) -> bool: ...

    @property
    def labeled(self) -> bool: ...


@dataclass(frozen=True)
class Decision:
    """kept: whether students train on the case; reason: one phrase for people."""

    kept: bool
    reason: str


def decide(judged: Mapping[str, Sureness], settings: SelfTraining, round_number: int) -> dict[str, Decision]:
    """Keep or drop every case.

    Args:
        judged: case -> how sure its teachers are.
        settings: with ``select``, ``threshold``, ``keep_fraction`` and ``keep_empty``.
        round_number: from 1; stability has nothing to compare with in the first.
    """
    unscored = settings.select == NONE or (settings.select == STABILITY and round_number == 1)
    why = "no selection asked for" if settings.select == NONE else "first round: nothing to compare with"
    scores = {case: found.score for case, found in judged.items()}
    chosen = None if settings.keep_fraction is None else best(scores, settings.keep_fraction)
    decisions = {}
    for case, found in judged.items():
        if not found.shown:
            decisions[case] = _empty("no teacher finds anything", settings)
        elif not found.labeled and (unscored or not settings.keep_empty):
            decisions[case] = _empty("the chosen label is empty", settings)
        elif unscored:
            decisions[case] = Decision(True, why)
        elif found.score is None:
            decisions[case] = Decision(False, f"no class has a score for {settings.select}")
        elif chosen is not None:
            share = f"the best {settings.keep_fraction:g} of the scored cases"
            decisions[case] = Decision(case in chosen, f"among {share}" if case in chosen else f"not among {share}")
        else:
            kept = found.score >= settings.threshold
            sign = "at least" if kept else "below"
            decisions[case] = Decision(kept, f"{settings.select} {found.score:.3f} is {sign} {settings.threshold:g}")
    return decisions


def _empty(reason: str, settings: SelfTraining) -> Decision:
    """Labels that are all background teach students to miss."""
    return Decision(settings.keep_empty, f"{reason}, kept as asked for" if settings.keep_empty else reason)


def best(scores: Mapping[str, float | None], fraction: float) -> set[str]:
    """The share of the scored cases with the highest scores, rounded up; of equals the first by name."""
    known = sorted((-score, case) for case, score in scores.items() if score is not None)
    return {case for _, case in known[: math.ceil(fraction * len(known) - 1e-9)]}


def refuse_too_few(
    decisions: Mapping[str, Decision], scores: Mapping[str, float | None], settings: SelfTraining
) -> None:
    """Raise SemiSupervisedError where fewer than ``min_cases`` cases are kept."""
    kept = sum(decision.kept for decision in decisions.values())
    if kept >= settings.min_cases:
        return
    known = sorted((score for score in scores.values() if score is not None), reverse=True)
    highest = f" The highest scores: {', '.join(f'{score:.3f}' for score in known[:5])}." if known else ""
    remedy = f"with a lower --threshold than {settings.threshold:g}, with --keep-fraction, or with --voxels ignore and "
    remedy = f"Give the command again {remedy}--select none; or train better teachers."
    if not known:
        remedy = "The teachers find nothing: train them longer, or on more labels. --keep-empty keeps such cases."
    elif settings.keep_fraction is not None:
        remedy = f"Give the command again with a higher --keep-fraction than {settings.keep_fraction:g}."
    raise complain(
        f"{kept} of {len(decisions)} cases are kept, fewer than --min-cases {settings.min_cases}.{highest}",
        remedy=remedy,
    )


def unusual_volumes(volumes: Mapping[str, float], labeled: Mapping[str, Sequence[float]]) -> list[str]:
    """Names of the classes whose volume lies far outside that of the labelled cases. Flagged, not dropped.

    Args:
        volumes: class -> volume in ml in this case.
        labeled: class -> its volumes in the labelled cases that show it.
    """
    result = []
    for name, volume in volumes.items():
        known = [v for v in labeled.get(name, ()) if v > 0]
        if volume > 0 and known and not min(known) / UNUSUAL <= volume <= max(known) * UNUSUAL:
            result.append(name)
    return result
