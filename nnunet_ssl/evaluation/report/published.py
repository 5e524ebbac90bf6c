"""The numbers that papers report for the same dataset and number of labelled cases, and why they do not compare."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nnunet_ssl.data.text_files import read_text
from nnunet_ssl.evaluation.report.quantities import QUANTITIES
from nnunet_ssl.evaluation.report.tables import Table

PATH = Path(__file__).with_name("published.csv")
COLUMNS = ["paper", "method", "dataset", "labeled", "total", "metric", "value", "std", "unit", "class"]
COLUMNS += ["note", "source"]
TOLERANCE = 0.005  # two labelled fractions that are one, half a percentage point


@dataclass(frozen=True)
class Published:
    """Reported numbers beside a table.

    Attributes:
        rows: COLUMNS and "caveat", empty where the numbers may be compared.
        protocol: the protocol that the benchmark follows, or None.
    """

    rows: pd.DataFrame
    protocol: str | None


def read_published() -> pd.DataFrame:
    """All reported numbers, the columns COLUMNS; text but for labeled, total and value."""
    rows = pd.read_csv(io.StringIO(read_text(PATH)), dtype=str, keep_default_na=False)
    for column in ("labeled", "total", "value"):
        rows[column] = pd.to_numeric(rows[column])
    return rows


def beside(table: Table, published: pd.DataFrame, protocol: str | None) -> Published:
    """The reported numbers of the table's dataset, metrics, and number or fraction of labelled cases.

    Means over the classes; the classes themselves where a publication gives no mean.

    Args:
        published: see :func:`read_published`.
        protocol: name of the published protocol that the benchmark follows, if it follows one.
    """
    _, _, name = table.place.dataset.partition("_")
    same = published["dataset"].map(_plain) == _plain(name)
    chosen = published[same & published["metric"].isin(table.metrics)]
    chosen = chosen[np.array([_same_labels(table, row) for row in chosen.to_dict("records")], dtype=bool)]
    has_mean = chosen.groupby(["paper", "method", "labeled"])["class"].transform(lambda names: (names == "mean").any())
    chosen = chosen[~has_mean.astype(bool) | (chosen["class"] == "mean")]
    caveats = [_caveat(table, row, protocol) for row in chosen.to_dict("records")]
    return Published(chosen.assign(caveat=caveats), protocol)


def protocol_of(manifest: Mapping[str, Any], dataset: str) -> str | None:
    """The key "protocol" of the manifest, of the dataset's entry or of the whole."""
    number, _, name = dataset.removeprefix("Dataset").partition("_")
    names = {dataset, name, number, number.lstrip("0")}
    for entry in manifest.get("datasets", []):
        if isinstance(entry, dict) and str(entry.get("dataset")) in names and entry.get("protocol"):
            return str(entry["protocol"])
    return str(manifest["protocol"]) if manifest.get("protocol") else None


def _same_labels(table: Table, row: Mapping[str, Any]) -> bool:
    """The same number of labelled cases in every fold, or the same fraction of the training cases."""
    if table.labeled is None or table.withheld is None:
        return False
    if table.labeled == (row["labeled"], row["labeled"]):
        return True
    (low, high), (fewest, most) = table.labeled, table.withheld
    fractions = (low / (low + most), high / (high + fewest))
    return bool(row["total"]) and all(abs(f - row["labeled"] / row["total"]) < TOLERANCE for f in fractions)


def _caveat(table: Table, row: Mapping[str, Any], protocol: str | None) -> str:
    """Why the number cannot be set against ours; empty if it can."""
    reasons = []
    if protocol is None or _plain(protocol) != _plain(row["dataset"]):
        reasons.append("other cases, split and preprocessing")
    unit = QUANTITIES[row["metric"]].unit(table.distance_unit)
    if row["unit"] != unit:
        reasons.append(f"{QUANTITIES[row['metric']].title} in {row['unit']}, ours in {unit}")
    return "; ".join(reasons)


def _plain(name: str) -> str:
    """Pancreas-CT, pancreas_ct and PancreasCT are one."""
    return "".join(c for c in name.lower() if c.isalnum())
