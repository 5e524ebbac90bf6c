"""The course of a training, from nnU-Net's checkpoint and from semi_supervised.csv."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import torch

from nnunet_ssl.data.text_files import read_text
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.evaluation.benchmark.results import CHECKPOINT
from nnunet_ssl.evaluation.report.load import Run

CSV = "semi_supervised.csv"
PSEUDO_DICE, VALIDATION_LOSS = "ema_fg_dice", "val_losses"  # nnU-Net's names
FOREGROUND_RATIO, AGREEMENT, TRUE_DICE = "foreground_ratio", "agreement", "true_dice"


def read_log(run: Run) -> tuple[pd.DataFrame, str]:
    """One row per epoch and the columns above as far as they are there; and why it is empty.

    Only results of one's own are to be read: a checkpoint can run code when it is opened.
    """
    folder = run.results_folder
    if folder is None or not (folder / CHECKPOINT).is_file():
        return pd.DataFrame(), f"there is no {CHECKPOINT} in its results folder"
    try:
        checkpoint = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=False, mmap=True)
        logged = {key: list(map(float, checkpoint["logging"][key])) for key in (PSEUDO_DICE, VALIDATION_LOSS)}
    except Exception as error:  # whatever a damaged file makes torch raise
        return pd.DataFrame(), f"{CHECKPOINT} is not readable ({type(error).__name__})"
    length = min(map(len, logged.values()))
    log = pd.DataFrame({key: values[:length] for key, values in logged.items()})
    return log.join(_semi_supervised(folder / CSV)), ""


def _semi_supervised(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(io.StringIO(read_text(path))).set_index("epoch").apply(pd.to_numeric)
    except (SemiSupervisedError, ValueError, TypeError, KeyError):
        return pd.DataFrame()
    if {"foreground", "labeled_foreground"} <= set(table):
        table[FOREGROUND_RATIO] = table["foreground"] / table["labeled_foreground"].where(
            table["labeled_foreground"] > 0
        )
    return table[[name for name in (FOREGROUND_RATIO, AGREEMENT, TRUE_DICE) if name in table]]
