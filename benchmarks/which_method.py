"""The tables of docs/which-method.md that follow from what was measured; written by benchmarks/measured.py.

A table stands between `<!-- measured: NAME -->` and `<!-- end -->`; everything else in the page is written by hand.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nnunet_ssl.recommendation.choice import rank
from nnunet_ssl.recommendation.evidence import Measured
from nnunet_ssl.recommendation.facts import Facts
from nnunet_ssl.recommendation.open_questions import ENOUGH, FEW, NO_BETTER, RARE, classes_of
from nnunet_ssl.trainers import TRAINERS, find_trainer

PAGE = Path(__file__).resolve().parents[1] / "docs" / "which-method.md"
BLOCK = re.compile(r"(?P<start><!-- measured: (?P<name>\w+) -->\n)(?P<table>.*?)(?P<end><!-- end -->)", re.DOTALL)
NNUNET = "`nnUNetTrainer`"
HIPPOCAMPUS = "[hippocampus](benchmarks/hippocampus.md)"


def updated(page: str, rows: Sequence[Measured]) -> str:
    """The text of the page with its tables as they should be.

    Args:
        page: the text as it is.
        rows: what was measured, of each comparison the best trainer first.
    """
    tables = {"advice": advice, "comparisons": comparisons, "methods": methods}
    return BLOCK.sub(lambda m: f"{m['start']}\n{_table(tables[m['name']](rows))}\n{m['end']}", page)


def advice(rows: Sequence[Measured]) -> Iterator[tuple[str, ...]]:
    """From data to a trainer and a reason."""
    yield "labelled", "unlabelled", "classes, dimensions", "GPU", "take", "because"
    yield "any", "none", "any", "any", NNUNET, "there is nothing to learn from beside the labels"
    yield (
        "so many that more of them bring nothing ([headroom](how-to/headroom.md) says so)", "any", "any", "any", NNUNET,
        f"on the {HIPPOCAMPUS}, with 9 to 34 labelled cases, Mean Teacher and SKCDF gained nothing (400 steps)",
    )  # fmt: skip
    for dimensions in (3, 2):
        yield (f"few; measured with {FEW}", "many", f"any, {dimensions}D", "any", *_best(dimensions, rows))
    yield (
        f"more than {ENOUGH}", "many", "any", "any", "the same, if [headroom](how-to/headroom.md) shows a gain",
        f"on the {HIPPOCAMPUS} nnU-Net was as good with {ENOUGH} labelled cases as with {NO_BETTER}",
    )  # fmt: skip
    yield (
        "fewer than 5", "many", "any", "any", "the same, as fold `all`",
        "nnU-Net's five folds need five cases; or `nnunet_ssl splits -d 4 --folds` writes fewer",
    )  # fmt: skip
    yield (
        "few", "many", f"a class under {100 * RARE:.0f} % of the labelled foreground", "any",
        "the same, and compare SKCDF, DHC and CPS with `balance`",
        f"these three are made for that; measured with {_classes(rows)} foreground classes, none of them rare",
    )  # fmt: skip
    yield (
        "few", "many", "any", "too small for a step", "the same, with smaller plans",
        "`nnunet_ssl plans --fit GIB -tr TRAINER` writes them; the [memory of every trainer](benchmarks/cost.md)",
    )  # fmt: skip
    yield (
        "few", "many", "any", "none", "the same, with a small network",
        "nnU-Net's full length takes weeks without one "
        "([how to](how-to/splits-and-settings.md#a-small-network-for-a-cpu))",
    )  # fmt: skip


def _classes(rows: Sequence[Measured]) -> str:
    return " and ".join(f"{number} ({name})" for name, number in classes_of(rows).items())


def _best(dimensions: int, rows: Sequence[Measured]) -> tuple[str, str]:
    ranked = rank(Facts("Dataset000_Any", "", dimensions, 0, 1, 1, None, None, {}), rows)
    if not ranked:
        return NNUNET, "no trainer has a gain that counts"
    same = [row for row in rows if row.trainer == ranked[0] and row.dimensions == dimensions]
    elsewhere = "" if same else "in other dimensions "
    said = [f"{elsewhere}{_dice(row)}" for row in same or [row for row in rows if row.trainer == ranked[0]]]
    return f"`{ranked[0]}`", "; ".join(said)


def _dice(row: Measured) -> str:
    everything = "" if math.isnan(row.all_labels) else f", on all labels {row.all_labels:.3f}"
    return (
        f"[{row.data}](benchmarks/{row.page}.md): Dice {row.dice:.3f} ({_runs(row.runs)}), nnU-Net on the same labels "
        f"{row.control:.3f} ({_runs(row.control_runs)}){everything}"
    )


def comparisons(rows: Sequence[Measured]) -> Iterator[tuple[str, ...]]:
    """Every trainer that was measured, in the order of its Dice."""
    yield "data", "steps", "trainer", "runs", "Dice", "its runs", "nnU-Net's runs", "gain", "counts as a gain"
    for row in rows:
        why_not = "one run" if row.runs == 1 else "a loss" if row.gain < 0 else "not every run is above nnU-Net's best"
        counts = "yes" if row.counts else f"no: {why_not}"
        yield (
            f"[{row.data}](benchmarks/{row.page}.md), {row.dimensions}D", str(row.steps), f"`{row.trainer}`",
            str(row.runs), f"{row.dice:.3f}", _range(row.lowest, row.highest),
            _range(row.control_lowest, row.control_highest), f"{row.gain:+.3f}", counts,
        )  # fmt: skip


def methods(rows: Sequence[Measured]) -> Iterator[tuple[str, ...]]:
    """Every semi-supervised method: its page, what was measured, what it costs."""
    data = list(dict.fromkeys(row.data for row in rows))
    found = {(row.trainer, row.data): f"{row.dice:.3f} ({_runs(row.runs)})" for row in rows}
    yield "method", "`-tr`", *(f"Dice, {name}" for name in data), "time per step", "memory beyond nnU-Net's"
    for name in semi_supervised():
        places = TRAINERS[name].removeprefix("nnunet_ssl.trainers.").split(".")
        page = "_".join(place for place in places if place != "trainer")
        link = f"[{name.removeprefix('nnUNetTrainer')}](methods/{page}.md)"
        dice = (found.get((name, each), "not measured") for each in data)
        yield link, f"`{name}`", *dice, _class(name).card.extra_time, _class(name).card.extra_memory


def semi_supervised() -> list[str]:
    """Methods that learn from images without labels, without their presets."""
    own = (name for name in TRAINERS if "_" not in name)
    return [name for name in own if getattr(_class(name), "uses_unlabeled", False)]


def _class(name: str) -> Any:
    return find_trainer(name)


def _range(lowest: float, highest: float) -> str:
    return "" if lowest == highest else f"{lowest:.3f} to {highest:.3f}"


def _runs(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"


def _table(rows: Iterator[tuple[str, ...]]) -> str:
    title, *others = rows
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (title, ("---",) * len(title), *others))
