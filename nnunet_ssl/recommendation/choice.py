"""Which trainer the measurements speak for, why, and what they leave open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from nnunet_ssl.recommendation.evidence import Measured
from nnunet_ssl.recommendation.facts import Facts
from nnunet_ssl.recommendation.open_questions import ENOUGH, NO_BETTER, headroom_command, open_questions
from nnunet_ssl.trainers import find_trainer
from nnunet_ssl.training.card import MethodCard

ROUNDING = 1e-6  # of measured.csv


@dataclass(frozen=True)
class Choice:
    """A recommendation.

    Attributes:
        trainer: its name, or ``None``: nnU-Net itself.
        reasons: what speaks for it, with figures.
        open_questions: what nobody has measured, and how to find out.
        before: command to run first where labels may be no bottleneck; the trainer is for data where it shows a gain.
    """

    trainer: str | None
    reasons: list[str]
    open_questions: list[str]
    before: str | None = None


def choose(facts: Facts, measured: Sequence[Measured]) -> Choice:
    """The first trainer of :func:`rank`, with the figures."""
    if facts.unlabeled == 0:
        reason = "There are no images without labels: imagesUn is missing or empty, and no split withholds labels."
        return Choice(None, [reason], [])
    ranked = rank(facts, measured)
    if not ranked:
        reason = "No trainer that supports these data has several runs that are all better than nnU-Net's best."
        return Choice(None, [reason], list(open_questions(facts, measured)))
    best, *others = ranked
    ratio = _ratio(best, facts)
    cost = (
        f"Cost: a step takes about {ratio:.2g} times as long as nnU-Net's on the same number of patches, that is about "
        f"{2 * ratio:.2g} times a step on the labelled patches alone. Memory beyond nnU-Net's: "
        f"{_card(best).extra_memory}."
    )
    reasons = [*_figures(best, measured), cost, *_next(best, others[:1], facts, measured)]
    before = None
    if facts.labeled > ENOUGH:
        reasons.insert(
            0,
            f"These data have {facts.labeled} labelled cases. On the hippocampus nnU-Net was as good with {ENOUGH} as "
            f"with {NO_BETTER}, and there was nothing to gain. docs/benchmarks/hippocampus.md",
        )
        before = headroom_command(facts)
    return Choice(best, reasons, list(open_questions(facts, measured)), before)


def rank(facts: Facts, measured: Sequence[Measured]) -> list[str]:
    """Trainers that these data can have and whose gain counts (:class:`Measured`), the one to take first.

    That is the one with the largest mean gain, or one that equals it, since the difference of their means is no larger
    than that between runs of one trainer: of such trainers the one that gained in most comparisons, and of those the
    cheapest. The others follow by their gain. Those measured in as many dimensions come before others: gains of two
    comparisons cannot be compared. A single run says nothing, since nobody knows what another seed would give.
    """
    gains: dict[str, tuple[bool, float]] = {}
    for trainer in dict.fromkeys(row.trainer for row in measured):
        own = _deciding(trainer, facts, measured)
        if trainer not in facts.unsupported and all(row.counts for row in own):
            gains[trainer] = (own[0].dimensions == facts.dimensions, mean(row.gain for row in own))
    ranked = sorted(gains, key=lambda trainer: gains[trainer], reverse=True)
    equal = [t for t in ranked if gains[t][0] == gains[ranked[0]][0] and _equal(ranked[0], t, facts, measured)]
    first = sorted(equal, key=lambda t: (-sum(row.counts for row in _of(t, measured)), _card(t).time_ratio))[:1]
    return first + [trainer for trainer in ranked if trainer not in first]


def _deciding(trainer: str, facts: Facts, measured: Sequence[Measured]) -> list[Measured]:
    """The trainer's rows of as many dimensions as the data have, or else all of them."""
    rows = _of(trainer, measured)
    return [row for row in rows if row.dimensions == facts.dimensions] or rows


def _equal(first: str, second: str, facts: Facts, measured: Sequence[Measured]) -> bool:
    """Whether two trainers differ by no more than runs of one of them do, in the comparisons that both are in."""
    return _within_spread(_deciding(first, facts, measured), _deciding(second, facts, measured))


def _within_spread(first: Sequence[Measured], second: Sequence[Measured]) -> bool:
    """The same for rows of two trainers; False where no comparison has both."""
    pairs = [(a, b) for a in first for b in second if a.data == b.data]
    return bool(pairs) and all(abs(a.dice - b.dice) <= max(a.spread, b.spread) + ROUNDING for a, b in pairs)


def _card(trainer: str) -> MethodCard:
    found: Any = find_trainer(trainer)
    card: MethodCard = found.card
    return card


def _ratio(trainer: str, facts: Facts) -> float:
    return _card(trainer).step_ratio(facts.dimensions)


def _of(trainer: str, measured: Sequence[Measured]) -> list[Measured]:
    return [row for row in measured if row.trainer == trainer]


def _figures(trainer: str, measured: Sequence[Measured]) -> Iterator[str]:
    for row in _of(trainer, measured):
        runs = f"{row.runs} runs" if row.runs > 1 else "one run"
        everything = "" if row.all_labels != row.all_labels else f", all labels {row.all_labels:.3f}"
        yield (
            f"{row.data} ({row.dimensions}D): Dice {row.dice:.3f} ({runs}), nnU-Net on the same labels "
            f"{row.control:.3f}{everything}. docs/benchmarks/{row.page}.md"
        )


def _next(best: str, others: Sequence[str], facts: Facts, measured: Sequence[Measured]) -> Iterator[str]:
    for other in others:
        row = _deciding(other, facts, measured)[0]
        beside = "".join(f" ({own.trainer}: {own.dice:.3f})" for own in _of(best, measured) if own.data == row.data)
        no_difference = (
            " This difference is not meaningful: it is smaller than the difference between runs of one trainer."
            if _within_spread(_of(best, measured), _of(other, measured))
            else ""
        )
        yield (
            f"Next: {other}, Dice {row.dice:.3f} on {row.data}{beside}; a step takes about {_ratio(other, facts):.2g} "
            f"times as long as nnU-Net's.{no_difference}"
        )
