"""Which trainer the measurements speak for, why, and what they leave open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from nnunet_ssl.recommendation.evidence import Measured
from nnunet_ssl.recommendation.facts import Facts
from nnunet_ssl.trainers import find_trainer
from nnunet_ssl.training.card import MethodCard

FEW = "2 or 3 labelled scans or patients"  # in measured.csv
RARE = 0.01  # share of the foreground below which a class counts as rare
FOR_RARE = ("nnUNetTrainerSKCDF", "nnUNetTrainerDHC", "nnUNetTrainerCPS")


@dataclass(frozen=True)
class Choice:
    """A recommendation.

    Attributes:
        trainer: its name, or ``None``: nnU-Net itself.
        reasons: what speaks for it, with figures.
        open_questions: what nobody has measured, and how to find out.
    """

    trainer: str | None
    reasons: list[str]
    open_questions: list[str]


def choose(facts: Facts, measured: Sequence[Measured]) -> Choice:
    """The first trainer of :func:`rank`, with the figures."""
    if facts.unlabeled == 0:
        reason = "There are no images without labels: imagesUn is missing or empty, and no split withholds labels."
        return Choice(None, [reason], [])
    ranked = rank(facts, measured)
    if not ranked:
        reason = "No trainer that supports these data has gained more than its runs differ by."
        return Choice(None, [reason], list(_open(facts)))
    best, *others = ranked
    card = _card(best)
    cost = (
        f"Cost: time per step as a ratio to nnU-Net's on as many patches: {card.extra_time}; with as many unlabelled "
        f"as labelled patches beside, twice that of a training on labels alone. Memory beyond it: {card.extra_memory}."
    )
    reasons = [*_figures(best, measured), cost]
    if others:
        row = _of(others[0], measured)[0]
        ratio = _card(others[0]).extra_time
        tie = (
            " No difference: it is smaller than that between runs." if _equal(best, others[0], facts, measured) else ""
        )
        reasons.append(f"Next: {others[0]}, Dice {row.dice:.3f} on {row.data}; that ratio: {ratio}.{tie}")
    return Choice(best, reasons, list(_open(facts)))


def rank(facts: Facts, measured: Sequence[Measured]) -> list[str]:
    """Trainers that these data can have and that gained more than their runs differ by, the one to take first.

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
    rows = [{row.data: row for row in _deciding(t, facts, measured)} for t in (first, second)]
    pairs = [(rows[0][data], rows[1][data]) for data in rows[0].keys() & rows[1].keys()]
    return bool(pairs) and all(round(abs(a.dice - b.dice), 3) <= max(a.spread, b.spread) for a, b in pairs)


def _card(trainer: str) -> MethodCard:
    found: Any = find_trainer(trainer)
    card: MethodCard = found.card
    return card


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


def _open(facts: Facts) -> Iterator[str]:
    yield "Those are small networks and short training runs; at nnU-Net's full length nothing has been compared yet."
    yield (
        f"Measured with {FEW} only; these data have {facts.labeled} labelled cases. On the hippocampus, with 9 to 34, "
        "Mean Teacher and SKCDF gained nothing (400 steps; no other trainer was among them; "
        f"docs/benchmarks/hippocampus.md). Whether more labels would help you at all: nnunet_ssl headroom -d "
        f"{facts.number} -c {facts.configuration}; to compare trainers: nnunet_ssl benchmark."
    )
    if facts.rarest is not None and facts.rarest < RARE:
        made = [name for name in FOR_RARE if name not in facts.unsupported]
        yield (
            f"The rarest class has {facts.rarest:.2%} of the labelled foreground. {', '.join(made)} (CPS with its "
            "setting balance) are made for that, and have not been measured on such data here."
        )
    if facts.gpu is None:
        yield (
            "There is no GPU here, and nnU-Net's full length takes weeks without one. Make plans with a small network "
            "first (docs/how-to/splits-and-settings.md), and ask again with -p."
        )
