"""The trainers and their hyper-parameters as tables that fit the terminal, or 80 columns where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nnunet_ssl.setting_descriptions import describe
from nnunet_ssl.trainers import FIRST_CHOICE, TRAINERS, find_trainer
from nnunet_ssl.trainers.lookup import find_any_trainer
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.settings import settings_name


def method_table(console: Console) -> None:
    """Print name and card of every trainer."""
    rows = []
    for name in TRAINERS:
        trainer: Any = find_trainer(name)
        card: MethodCard = trainer.card
        precise = "" if trainer.recipe_for(trainer.Hyperparameters()).mixed_precision else "; in float32"
        facts = (
            card.paper,
            f"predicts: {card.predicts}; {card.dimensions}; {trainer.planned_epochs({})} epochs",
            f"memory: {card.extra_memory}{precise}",
            f"time: {card.extra_time}",
        )
        rows.append((name, "\n".join(facts)))
    _print(console, ("trainer", "paper, what predicts, memory, time per step"), rows)
    console.print(
        "Memory: beyond nnU-Net on the same number of patches; time: as a ratio to it. In float32, as publications "
        "train, a step needs about twice the memory.\n"
        "Any length: TRAINER_<N>epochs. Hyper-parameters: nnunet_ssl methods -tr TRAINER\n"
        f"Start with {FIRST_CHOICE}. For your dataset: nnunet_ssl methods --for DATASET"
    )


def setting_table(trainer_name: str, console: Console) -> None:
    """Print every hyper-parameter of a trainer: name, default, meaning with the values allowed, source.

    Raises:
        SemiSupervisedError: no such trainer, here or in nnUNet_extTrainer.
    """
    trainer = find_any_trainer(trainer_name)
    rows = [
        (setting.name, setting.default, f"{setting.doc}\n[{setting.allowed}]", setting.source)
        for setting in describe(trainer.Hyperparameters)
    ]
    card: MethodCard | None = getattr(trainer, "card", None)  # others may do without
    console.print(f"{trainer.__name__}: {card.paper}\n" if card else f"{trainer.__name__}\n")
    if not rows:
        console.print("No hyper-parameters. Length, optimiser and learning rate: nnunet_ssl plans --help")
        return
    _print(console, ("hyper-parameter", "default", "meaning", "source"), rows)
    key, value = rows[-1][:2]
    change = f"nnunet_ssl plans ... --hyperparameters {settings_name(trainer_name)}:{key}={value}"
    console.print(f"Change them in a plans file: {change}", soft_wrap=True)  # a command stays in one line, to be copied


def _print(console: Console, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table with space between the rows, whose long cells are wrapped; names, the first column, are not."""
    table = Table(box=SIMPLE, leading=1, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for number, title in enumerate(header):
        table.add_column(title, no_wrap=number == 0, overflow="fold")  # nothing is cut off
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table, "", sep="\n")


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with left-aligned columns, the first one underlined."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]
