"""The trainers and their hyper-parameters as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnunet_ssl.errors import complain
from nnunet_ssl.trainers import TRAINERS, find_trainer
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.settings import describe, settings_name

HEADER = ("trainer", "paper", "predicts", "2D/3D", "epochs", "extra memory", "time per step")


def method_table() -> str:
    """One row per trainer, from its card."""
    rows = [HEADER]
    for name in TRAINERS:
        trainer: Any = find_trainer(name)
        card: MethodCard = trainer.card
        what = (name, card.paper, card.predicts, card.dimensions, str(trainer.default_epochs))
        rows.append((*what, card.extra_memory, card.extra_time))
    notes = (
        "Memory and time per step: beyond, and as a ratio to, nnU-Net on the same number of patches.",
        "Another length: <trainer>_<N>epochs, or num_epochs in nnunet_ssl plans. Hyper-parameters of one trainer: "
        "nnunet_ssl methods -tr TRAINER",
    )
    return "\n".join([*align(rows), "", *notes])


def setting_table(trainer_name: str) -> str:
    """Every hyper-parameter of a trainer: name, default, meaning, source.

    Raises:
        SemiSupervisedError: no such trainer.
    """
    try:
        trainer: Any = find_trainer(trainer_name)
    except AttributeError as error:
        raise complain(f"{error}.", remedy="Run: nnunet_ssl methods") from error
    name = settings_name(trainer_name)
    rows = [(key, _text(default), doc, source) for key, default, doc, source in describe(trainer.Hyperparameters)]
    lines = [f"{trainer.__name__}: {trainer.card.paper}", ""]
    if not rows:
        return "\n".join([*lines, "No hyper-parameters. Length, optimiser and learning rate: nnunet_ssl plans --help"])
    lines += align([("hyper-parameter", "default", "meaning", "source"), *rows])
    key, value = rows[-1][:2]
    return "\n".join(
        [*lines, "", f"Change them in a plans file: nnunet_ssl plans ... --hyperparameters {name}:{key}={value}"]
    )


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with left-aligned columns, the first one underlined."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def _text(default: Any) -> str:
    """As it would be typed in an assignment, which is JSON or plain text."""
    if default is None:
        return "null"
    return str(default).lower() if isinstance(default, bool) else str(default)
