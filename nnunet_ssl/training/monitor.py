"""Per-epoch means of loss terms, weights and pseudo-label monitors, summed on the training device."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch import distributed as dist

from nnunet_ssl.system.whole_files import whole_file
from nnunet_ssl.training.distributed import is_distributed

PREFIX = "ssl/"  # of the keys in nnU-Net's logger, one group in Weights & Biases
LOSS, WEIGHT, COUNT = "loss_", "weight_", "count_"


class Monitor:
    """Collects scalars during an epoch without synchronising with the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._sums: dict[str, Tensor | float] = {}
        self._counts: dict[str, Tensor | float] = {}

    @torch.no_grad()
    def add(self, name: str, value: Tensor | float, count: Tensor | float = 1.0) -> None:
        """Add one observation of ``name``: a finite scalar that stands for ``count`` elements (0: nothing observed)."""
        value = value.detach() if isinstance(value, Tensor) else value
        self._sums[name] = self._sums.get(name, 0.0) + value * count
        self._counts[name] = self._counts.get(name, 0.0) + count

    def epoch_means(self) -> dict[str, float]:
        """Mean of every name over the epoch and all ranks, NaN where nothing was observed; then starts afresh."""
        if not self._sums:
            return {}
        names = sorted(self._sums)
        scalars = [x for n in names for x in (self._sums[n], self._counts[n])]
        table = torch.stack([torch.as_tensor(x, dtype=torch.float32, device=self.device) for x in scalars]).view(-1, 2)
        if is_distributed():
            dist.all_reduce(table)
        self._sums, self._counts = {}, {}
        rows = table.cpu().tolist()  # the one synchronisation of the epoch
        return {n: s / c if c > 0 else math.nan for n, (s, c) in zip(names, rows, strict=True)}


def register(logging: dict[str, list], key: str, epoch: int) -> None:
    """Make nnU-Net's local logger accept ``key``, with NaN for the epochs before it was first seen.

    nnU-Net asserts that a key exists and draws as many epochs as the shortest list has.
    """
    values = logging.setdefault(key, [])
    values.extend([math.nan] * (epoch - len(values)))


def history(logging: dict[str, list]) -> pd.DataFrame:
    """One row per epoch, one column per logged scalar of this package."""
    columns = {key[len(PREFIX) :]: values for key, values in logging.items() if key.startswith(PREFIX)}
    table = pd.DataFrame(columns)
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
        "pseudo-labels": [c for c in table if not c.startswith((LOSS, WEIGHT, COUNT)) and c != "epoch"],
        "number": [c for c in table if c.startswith(COUNT)],
    }
    groups = {title: columns for title, columns in groups.items() if columns}
    if not groups:
        return
    sns.set_theme(font_scale=2.5)
    figure, axes = plt.subplots(len(groups), 1, figsize=(30, 18 * len(groups)), squeeze=False)
    for axis, (title, columns) in zip(axes[:, 0], groups.items(), strict=True):
        for column in columns:
            label = column.removeprefix(LOSS).removeprefix(WEIGHT).removeprefix(COUNT)
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
