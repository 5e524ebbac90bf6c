"""A recommendation as text."""

from __future__ import annotations

import re

from rich.console import Console

from nnunet_ssl.recommendation.choice import Choice
from nnunet_ssl.recommendation.facts import Facts


def show(facts: Facts, choice: Choice, plans_name: str, split: str | None, console: Console) -> None:
    """Print the dataset, the recommendation, its reasons, what is open, and the commands."""
    of_classes = "1 foreground class" if facts.classes == 1 else f"{facts.classes} foreground classes"
    memory = "no GPU" if facts.gpu is None else f"a GPU of {facts.gpu:.0f} GiB"
    console.print(
        f"{facts.name}, {facts.configuration} ({facts.dimensions}D): {facts.labeled} labelled and {facts.unlabeled} "
        f"unlabelled cases, {of_classes}, {memory}.\n"
    )
    trainer = choice.trainer or "nnUNetTrainer"
    console.print(f"Take {trainer}." if choice.trainer else "Take nnU-Net itself, nnUNetTrainer.")
    _list(choice.reasons, console)
    if choice.open_questions:
        console.print("\nWhat this does not tell:")
        _list(choice.open_questions, console)
    number = int(re.match(r"Dataset(\d+)_", facts.name)[1])  # type: ignore[index]
    console.print("")
    if split is not None:
        console.print(f"nnunet_ssl plans -d {number} -p {plans_name} --split {split}", soft_wrap=True)
        plans_name = f"{plans_name}_{split}"
    plans = "" if plans_name == "nnUNetPlans" else f" -p {plans_name}"
    console.print(f"nnUNetv2_train {number} {facts.configuration} 0 -tr {trainer}{plans}", soft_wrap=True)


def _list(lines: list[str], console: Console) -> None:
    for line in lines:
        console.print(f"  - {line}")
