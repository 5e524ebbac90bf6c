"""The live table: one row per round."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from nnunet_ssl.data.text_files import read_json
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.evaluation.benchmark.jobs import COMPLETE, FAILED, RUNNING
from nnunet_ssl.evaluation.benchmark.progress import Board
from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.steps import CONTROL, DATASET, ENSEMBLE, FINETUNE, PREDICT, PREPROCESS, SELECT, TRAIN, Step

COLUMNS = {"predicted": (PREDICT, ENSEMBLE), "data": (DATASET, PREPROCESS), "trained": (TRAIN, FINETUNE)}


class RoundsBoard(Board):
    """State of every step, shown by round.

    Args:
        run: whose steps they are.
        output, steps, at_once: see :class:`Board`.
    """

    def __init__(self, run: Run, output: str, steps: Sequence[Step], at_once: int) -> None:
        super().__init__(output, steps, at_once)
        self._run, self._steps = run, list(steps)

    def table(self, height: int) -> Group:
        """One row per round, and one for the control that trains as long as all rounds."""
        table = Table("round", "predicted", "kept", "data", "trained", "doing now", box=None)
        table.title = "Semi-supervised self-training"
        rounds = sorted({step.round for step in self._steps if step.kind != CONTROL})
        for number in rounds:
            steps = [step for step in self._steps if step.round == number and step.kind != CONTROL]
            done = {name: self._count(steps, kinds) for name, kinds in COLUMNS.items()}
            row = [str(number), done["predicted"], self._kept(number, steps), done["data"], done["trained"]]
            table.add_row(*row, self._doing(steps))
        control = [step for step in self._steps if step.kind == CONTROL]
        if control:
            table.add_row("control", "", "", "", self._count(control, (CONTROL,)), self._doing(control))
        return Group(table, Text(self.summary()))

    def _count(self, steps: Sequence[Step], kinds: Sequence[str]) -> str:
        chosen = [step for step in steps if step.kind in kinds]
        return f"{sum(self.states[step.id] == COMPLETE for step in chosen)} of {len(chosen)}" if chosen else ""

    def _kept(self, number: int, steps: Sequence[Step]) -> str:
        if not any(step.kind == SELECT and self.states[step.id] == COMPLETE for step in steps):
            return ""
        kept, total = kept_of(self._run, number)
        return f"{kept} of {total}"

    def _doing(self, steps: Sequence[Step]) -> Text:
        parts = []
        for step in steps:
            name = step.kind if step.member is None else f"{step.kind} {step.member}"
            if self.states[step.id] == FAILED:
                return Text(f"{name} FAILED", "red")
            if self.states[step.id] == RUNNING:
                _, epoch, left = self.doing(step.id)
                parts.append(", ".join(filter(None, [name, epoch and f"epoch {epoch}", left and f"{left} left"])))
        return Text("; ".join(parts), "cyan")


def kept_of(run: Run, round_number: int) -> tuple[int, int]:
    """(kept cases, cases of the pool) by selection.json; zeros where it cannot be read."""
    path = run.selection_file(round_number)
    if not os.path.isfile(path):
        return 0, 0
    try:
        cases: list[dict[str, Any]] = read_json(path, dict)["cases"]
    except (SemiSupervisedError, KeyError):
        return 0, 0
    return sum(bool(entry["kept"]) for entry in cases), len(cases)
