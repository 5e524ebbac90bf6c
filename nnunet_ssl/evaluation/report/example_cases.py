"""Which cases are shown as pictures."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from nnunet_ssl.evaluation.report.aggregate import foreground, per_case


def choose_cases(values: pd.DataFrame, control: str, asked: Sequence[str] | None) -> dict[str, str]:
    """Case -> why it is shown.

    Args:
        values: rows of one place, see :class:`nnunet_ssl.evaluation.report.load.Benchmark`.
        control: trainer by whose Dice they are chosen: the case in the middle and the worst one, over all splits. All
            trainers decide together where it is absent.
        asked: by the user; those that are not among the evaluated ones are left out.
    """
    if asked is not None:
        known = set(values["case"])
        return {case: "asked for" for case in dict.fromkeys(asked) if case in known}
    of_control = values[values["trainer"] == control]
    whose = "the control's" if len(of_control) else "all trainers'"
    rows = of_control if len(of_control) else values
    means = [per_case(foreground(part, "dice")) for _, part in rows.groupby(["trainer", "split"])]
    dice = (
        pd.concat(means, axis=1).mean(axis=1).dropna().sort_values(kind="stable") if means else pd.Series(dtype=float)
    )
    if dice.empty:
        return {}
    middle, worst = str(dice.index[len(dice) // 2]), str(dice.index[0])
    return {middle: f"{whose} median Dice", worst: f"{whose} worst Dice"}
