"""What a person can follow during training: nnU-Net's logger, a table and a figure, once per epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from nnunet_ssl.system.whole_files import whole_file
from nnunet_ssl.training.monitor import COUNT, PREFIX
from nnunet_ssl.training.watch import KEPT, LOSS, PULL, SHARE, WEIGHT


def log_epoch(logger: Any, means: Mapping[str, float], epoch: int, log: Callable[..., None]) -> None:
    """Hand the means of an epoch to nnU-Net's logger, NaN for what earlier epochs alone observed, and to its log."""
    logging = logger.local_logger.my_fantastic_logging
    known = {key for key in logging if key.startswith(PREFIX)}
    for key in sorted(known | {PREFIX + name for name in means}):
        register(logging, key, epoch)
        logger.log(key, means.get(key.removeprefix(PREFIX), math.nan), epoch)
    log("semi-supervised:", ", ".join(f"{name} {value:.4g}" for name, value in means.items()))


def write_files(logger: Any, folder: str) -> None:
    """Table and figure of all epochs so far."""
    table = history(logger.local_logger.my_fantastic_logging)
    write_csv(table, folder)
    draw_png(table, folder)


def register(logging: dict[str, list], key: str, epoch: int) -> None:
    """Make nnU-Net's local logger accept ``key``, with NaN for the epochs before it was first seen.

    nnU-Net asserts that a key exists and draws as many epochs as the shortest list has.
    """
    values = logging.setdefault(key, [])
    values.extend([math.nan] * (epoch - len(values)))


def logged(logging: dict[str, list]) -> dict[str, list[float]]:
    """What this package has logged by name, one number per epoch."""
    return {key[len(PREFIX) :]: values for key, values in logging.items() if key.startswith(PREFIX)}


def history(logging: dict[str, list]) -> pd.DataFrame:
    """One row per epoch, one column per logged scalar of this package."""
    table = pd.DataFrame(logged(logging))
    table.insert(0, "epoch", range(len(table)))
    return table


def write_csv(table: pd.DataFrame, folder: str) -> None:
    """``semi_supervised.csv`` in the fold's results folder, whole at any moment."""
    with whole_file(Path(folder, "semi_supervised.csv")) as temporary:
        table.to_csv(temporary, index=False)


def draw_png(table: pd.DataFrame, folder: str) -> None:
    """``progress_semi_supervised.png`` beside nnU-Net's progress.png and in its style."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    groups = {
        "loss": [c for c in table if c.startswith(LOSS)],
        "weight": [c for c in table if c.startswith(WEIGHT)],
        "pull": [c for c in table if c.startswith(PULL)],
        "kept": [c for c in table if c.startswith(KEPT)],
        "share of voxels": [c for c in table if c.startswith(SHARE)],
        "pseudo-labels": [c for c in table if not c.startswith((LOSS, WEIGHT, PULL, KEPT, SHARE, COUNT, "epoch"))],
        "number": [c for c in table if c.startswith(COUNT)],
    }
    groups = {title: columns for title, columns in groups.items() if columns}
    if not groups:
        return
    sns.set_theme(font_scale=2.5)
    figure, axes = plt.subplots(len(groups), 1, figsize=(30, 18 * len(groups)), squeeze=False)
    for axis, (title, columns) in zip(axes[:, 0], groups.items(), strict=True):
        for column in columns:
            label = column if title == "pseudo-labels" else column.split("_", 1)[1]
            axis.plot(table["epoch"], table[column], linewidth=4, label=label, marker="o" if len(table) < 3 else None)
        axis.set_xlabel("epoch")
        axis.set_ylabel(title)
        axis.legend(loc=(0, 1), ncols=3)
    figure.tight_layout()
    try:
        with whole_file(Path(folder, "progress_semi_supervised.png")) as temporary:
            figure.savefig(temporary, format="png")
    finally:
        plt.close(figure)
