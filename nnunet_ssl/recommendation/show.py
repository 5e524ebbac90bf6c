"""A recommendation as text."""

from __future__ import annotations

from rich.console import Console

from nnunet_ssl.recommendation.choice import Choice
from nnunet_ssl.recommendation.facts import Facts
from nnunet_ssl.recommendation.steps import Run, commands, memory_line, memory_of_step


def show(facts: Facts, choice: Choice, plans_name: str, split: str | None, console: Console) -> None:
    """Print the dataset, the recommendation, its reasons, what is open, and the commands."""
    of_classes = "1 foreground class" if facts.classes == 1 else f"{facts.classes} foreground classes"
    memory = "no GPU" if facts.gpu is None else f"a GPU of {facts.gpu:.0f} GiB"
    console.print(
        f"{facts.name}, {facts.configuration} ({facts.dimensions}D): {facts.labeled} labelled and {facts.unlabeled} "
        f"unlabelled cases, {of_classes}, {memory}.\n"
    )
    run = Run(facts, choice.trainer, plans_name, split)
    need = memory_of_step(run)
    take = f"Take {run.name}" if choice.trainer else f"Take nnU-Net on the labels alone, {run.name}"
    if choice.before is not None:  # a command stays in one line, to be copied
        console.print(f"First run: {choice.before}", soft_wrap=True)
        take += " if it shows a gain"
    console.print(f"{take}.")
    _list([*choice.reasons, *([] if need is None else [memory_line(run, need)])], console)
    if choice.open_questions:
        console.print("\nWhat this does not tell:")
        _list(choice.open_questions, console)
    console.print("")
    for command in commands(run, need):
        console.print(command, soft_wrap=True)  # a command stays in one line, to be copied


def _list(lines: list[str], console: Console) -> None:
    for line in lines:
        console.print(f"  - {line}")
