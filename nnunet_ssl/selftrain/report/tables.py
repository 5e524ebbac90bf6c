"""The tables of the page, as text in cells."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pandas as pd

from nnunet_ssl.evaluation.report.quantities import MISSING, QUANTITIES
from nnunet_ssl.evaluation.report.text_tables import NUMBER, REMARK, TEXT, Column, Text, TextTable, p_text
from nnunet_ssl.selftrain.keys import SELECTION_TABLE
from nnunet_ssl.selftrain.report.rounds import METRICS
from nnunet_ssl.selftrain.report.values import Result
from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.steps import CONTROL

SHOWN = 8  # cases per list


def rounds_text(table: pd.DataFrame, unit: str) -> TextTable:
    """The table of rounds; the first row is the control."""
    columns = [Column("round", kind=TEXT), Column("kept", "of cases"), Column("models"), Column("epochs")]
    for metric in METRICS:
        group = f"{QUANTITIES[metric].title}, {QUANTITIES[metric].unit(unit)}"
        columns += [
            Column("mean", "\u00b1 std over cases", group),
            Column("difference", "to round 0, 95 % interval", group),
            Column("p", "Wilcoxon", group),
            Column("mean", "all models", group),
        ]
    columns += [Column("trainings", "so far", "cost"), Column("hours", "so far", "cost")]
    rows = [_row(row) for row in table.to_dict("records")]
    control = [bool(row["round"] == 0 or pd.isna(row["kept"])) for row in table.to_dict("records")]
    return TextTable("Rounds", columns, rows, control)


def _row(row: dict[Any, Any]) -> list[Text]:
    kept = "" if pd.isna(row["kept"]) or not row["pool"] else f"{int(row['kept'])}"
    cells = [Text(row["row"]), Text(kept, f"of {int(row['pool'])}" if kept else ""), Text(str(row["models"]))]
    cells.append(Text(str(row["epochs"])))
    for metric in METRICS:
        quantity = QUANTITIES[metric]
        low, high = (quantity.text(_number(row, f"{metric}_difference_{end}"), signed=True) for end in ("low", "high"))
        std = _number(row, f"{metric}_std")
        cells += [
            Text(quantity.text(row[metric]), "" if std is None else f"\u00b1 {quantity.text(std)}"),
            Text(
                quantity.text(_number(row, f"{metric}_difference"), signed=True),
                "" if low == MISSING else f"[{low}, {high}]",
            ),
            Text(p_text(_number(row, f"{metric}_p") or float("nan"))),
            Text(quantity.text(row[f"{metric}_models"])),
        ]
    return [*cells, Text(str(row["trainings"])), Text(f"{row['hours']:.2f}")]


def _number(row: dict[Any, Any], name: str) -> float | None:
    value = row.get(name)
    return None if value is None or pd.isna(value) else float(value)


def class_text(run: Run, results: Sequence[Result]) -> TextTable:
    """Dice of each class, one row per model."""
    names = [kind.name for kind in run.labels.classes]
    columns = [Column("round", kind=TEXT), Column("seed"), Column("fold"), *(Column(name, "Dice, %") for name in names)]
    rows, control = [], []
    for result in results:
        means = result.rows.groupby("class")["dice"].mean()
        first, long = result.step.round == 0, result.step.kind == CONTROL
        name = "control, as long" if long else str(result.step.round)
        own = [Text(name), Text(str(result.rows["seed"].iloc[0])), Text(str(result.rows["fold"].iloc[0]))]
        rows.append([*own, *(Text(QUANTITIES["dice"].text(means.get(n))) for n in names)])
        control.append(first or long)
    return TextTable("Classes and models", columns, rows, control)


def read_selection(run: Run, round_number: int) -> pd.DataFrame | None:
    """selection.csv of a round; None where there is none."""
    path = os.path.join(run.round_folder(round_number), SELECTION_TABLE)
    if not os.path.isfile(path):
        return None
    return pd.read_csv(path, dtype={"case": str, "reason": str, "unusual_volumes": str}, keep_default_na=True)


def coverage_text(run: Run, selection: pd.DataFrame) -> TextTable:
    """Per class: in how many cases the teachers see it, how many of these are kept, scores and volumes."""
    kept = selection["kept"].astype(bool)
    monitored = any(name.startswith("true_dice_") for name in selection)
    columns = [
        Column("class", kind=TEXT),
        Column("cases", "that show it"),
        Column("kept", "of these"),
        Column("score", "mean of all"),
        Column("volume", "ml, mean of the kept"),
        Column("unusual volume", "kept cases"),
        *([Column("true Dice", "of the kept, %"), Column("true Dice", "of all, %")] if monitored else []),
    ]
    rows = []
    for kind in run.labels.classes:
        shown = selection[f"volume_ml_{kind.name}"] > 0
        unusual = selection["unusual_volumes"].fillna("").str.split().apply(lambda names, n=kind.name: n in names)
        score = selection[f"score_{kind.name}"].mean()
        volume = selection.loc[shown & kept, f"volume_ml_{kind.name}"].mean()
        cells = [kind.name, str(int(shown.sum())), str(int((shown & kept).sum()))]
        cells += [_text(score, "{:.3f}"), _text(volume, "{:.1f}"), str(int((unusual & kept).sum()))]
        if monitored:
            true = selection[f"true_dice_{kind.name}"]
            cells += [QUANTITIES["dice"].text(true[kept].mean()), QUANTITIES["dice"].text(true.mean())]
        rows.append([*map(Text, cells)])
    return TextTable("Classes in the pseudo-labels", columns, rows, [False] * len(rows))


def cases_text(selection: pd.DataFrame) -> TextTable:
    """The surest and the least sure cases, with the reason for what became of them."""
    chosen = selection if len(selection) <= 2 * SHOWN else pd.concat([selection.head(SHOWN), selection.tail(SHOWN)])
    columns = [Column("case", kind=TEXT), Column("score"), Column("kept", kind=TEXT), Column("reason", kind=REMARK)]
    columns += [Column("differing", "% of foreground", kind=NUMBER), Column("unusual volume", kind=TEXT)]
    rows = [
        [
            Text(str(row["case"])),
            Text(_text(row["score"], "{:.3f}")),
            Text("yes" if row["kept"] else "no"),
            Text(str(row["reason"])),
            Text(f"{100 * row['differing']:.1f}"),
            Text("" if pd.isna(row["unusual_volumes"]) else str(row["unusual_volumes"])),
        ]
        for row in chosen.to_dict("records")
    ]
    return TextTable(f"{len(chosen)} of {len(selection)} cases", columns, rows, [False] * len(rows))


def _text(value: float, form: str) -> str:
    return MISSING if pd.isna(value) else form.format(value)
