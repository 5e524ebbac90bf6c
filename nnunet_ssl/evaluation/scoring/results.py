"""The result of an evaluation, and its three files."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from platform import python_version
from typing import Any

import pandas as pd

import nnunet_ssl
from nnunet_ssl.data.text_files import read_text
from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.scoring.aggregate import mean_over_classes, summarize
from nnunet_ssl.evaluation.scoring.conventions import CONVENTIONS
from nnunet_ssl.evaluation.scoring.definitions import COLUMNS, METRICS, definitions
from nnunet_ssl.evaluation.scoring.markdown import render
from nnunet_ssl.system.whole_files import whole_file

VERSION = 1
STEM = "evaluation"
LIBRARIES = ("nnunetv2", "monai", "torch", "scipy", "numpy")
TEXT = ("case", "class", "label", "status")


@dataclass(frozen=True)
class Evaluation:
    """What `nnunet_ssl evaluate` found.

    Attributes:
        reference: folder of the reference labels.
        prediction: folder of the predictions.
        unit: "mm" or "voxel".
        tolerance: of the NSD, in this unit.
        rows: one per case and class, keys as the columns of evaluation.csv; NaN where there is no value.
        notes: what a reader of the numbers should know.
        convention: name of a publication's way of scoring, or None for this package's own.
        predicted: what `nnunet_ssl predict-as-paper` recorded of the predictions, or None.
    """

    reference: str
    prediction: str
    unit: str
    tolerance: float
    rows: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    convention: str | None = None
    predicted: dict[str, Any] | None = None

    @cached_property
    def classes(self) -> dict[str, dict[str, Any]]:
        """Per class, see :func:`summarize`."""
        return summarize(self.rows)

    @cached_property
    def mean(self) -> dict[str, float]:
        """Metric -> mean over the foreground classes."""
        return mean_over_classes(self.classes)

    def definitions(self) -> dict[str, str]:
        """What each number is; where a publication means something else by it, that."""
        own = definitions(self.unit, self.tolerance)
        if self.convention is None:
            return own
        chosen = CONVENTIONS[self.convention]
        left_out = [name for name in METRICS if name not in chosen.reported]
        return {name: text for name, text in own.items() if name not in left_out} | chosen.described()

    def to_json(self) -> dict[str, Any]:
        """Content of evaluation.json, None in place of NaN."""
        content = {
            "version": VERSION,
            "unit": self.unit,
            "tolerance": self.tolerance,
            "convention": self.convention,
            "definitions": self.definitions(),
            "versions": versions(),
            "reference": self.reference,
            "prediction": self.prediction,
            "predicted": self.predicted,
            "notes": self.notes,
            "cases": self.rows,
            "classes": self.classes,
            "mean": self.mean,
        }
        return {key: _without_nan(value) for key, value in content.items()}

    def to_csv(self) -> str:
        """Content of evaluation.csv; empty fields for NaN, numbers with all their digits."""
        file = io.StringIO()
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_without_nan(self.rows))
        return file.getvalue()

    def to_markdown(self) -> str:
        """Content of evaluation.md."""
        return render(self.to_json())

    def write(self, folder: str) -> list[str]:
        """Write the three files, each in one step after all of them are complete. Returns their paths."""
        contents = {
            "json": json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n",
            "csv": self.to_csv(),
            "md": self.to_markdown(),
        }
        os.makedirs(folder, exist_ok=True)
        paths = [os.path.join(folder, f"{STEM}.{ending}") for ending in contents]
        with ExitStack() as stack:
            for path, content in zip(paths, contents.values(), strict=True):
                temporary = stack.enter_context(whole_file(path))
                with open(temporary, "w", encoding="utf-8", errors="replace", newline="\n") as file:
                    file.write(content)
        return paths


def versions() -> dict[str, str]:
    """Of the software that the numbers depend on."""
    libraries = {name: version(name) for name in LIBRARIES}
    return {"nnunet_ssl": nnunet_ssl.__version__, **libraries, "python": python_version()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, (list, tuple)) else value


def read_rows(path_csv: str) -> pd.DataFrame:
    """The rows of an evaluation.csv.

    Names stay text, also "001" and "NA"; metrics are float with NaN for empty fields, voxel counts int.

    Raises:
        SemiSupervisedError: another header, or a field that is no number.
    """
    try:
        table = pd.read_csv(io.StringIO(read_text(path_csv)), dtype=str, keep_default_na=False)
    except ValueError as error:  # pandas' errors of empty and of ragged files are ValueErrors
        raise complain(f"{path_csv} is not an evaluation.csv: {error}") from error
    if (header := tuple(table.columns)) != COLUMNS:
        raise complain(
            f"{path_csv} is not an evaluation.csv of this version.",
            [f"its header is {','.join(header)}", f"expected was {','.join(COLUMNS)}"],
            "Run `nnunet_ssl evaluate` again.",
        )
    for column in [c for c in COLUMNS if c not in TEXT]:
        number = (lambda text: float(text or "nan")) if column in METRICS else int
        try:
            table[column] = [number(text) for text in table[column]]
        except ValueError as error:
            remedy = "Run `nnunet_ssl evaluate` again."
            raise complain(f"{path_csv}, column {column}: {error}", remedy=remedy) from error
    return table
