"""Learning curves: one thin line per training run, one thick line per trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.ticker import MaxNLocator

from nnunet_ssl.evaluation.report.drawing import Style, legend, line_handles, new_figure, tidy, to_png
from nnunet_ssl.evaluation.report.load import Run
from nnunet_ssl.evaluation.report.training_logs import (
    AGREEMENT,
    FOREGROUND_RATIO,
    PSEUDO_DICE,
    TRUE_DICE,
    VALIDATION_LOSS,
)

LABELS = {
    PSEUDO_DICE: "Dice of validation patches\n(nnU-Net, moving average)",
    VALIDATION_LOSS: "loss of validation\npatches",
    FOREGROUND_RATIO: "foreground in pseudo-labels\n/ in labels",
    AGREEMENT: "agreement of student\nand teacher",
    TRUE_DICE: "Dice of the\npseudo-labels",
}


def draw(logs: Sequence[tuple[Run, pd.DataFrame]], splits: Sequence[str], looks: Mapping[str, Style]) -> bytes | None:
    """PNG: quantities as rows, splits as columns. None where there is no log.

    Args:
        logs: see :func:`nnunet_ssl.evaluation.report.training_logs.read_log`.
    """
    logs = [(run, log) for run, log in logs if not log.empty]
    rows = [name for name in LABELS if any(name in log and log[name].notna().any() for _, log in logs)]
    if not rows:
        return None
    figure = new_figure(max(4.6, 3.6 * len(splits) + 0.8), 1.95 * len(rows) + 0.6)
    axes = figure.subplots(len(rows), len(splits), squeeze=False, sharex=True, sharey="row")
    for line, quantity in zip(axes, rows, strict=True):
        for axis, split in zip(line, splits, strict=True):
            for trainer, style in looks.items():
                of_trainer = [log for run, log in logs if (run.trainer, run.split) == (trainer, split)]
                curves = pd.DataFrame({index: log[quantity] for index, log in enumerate(of_trainer) if quantity in log})
                if curves.shape[1] > 1:
                    axis.plot(curves, color=style.color, linewidth=0.6, alpha=0.45, zorder=style.order)
                mark = style.marker if len(curves) < 3 else None
                axis.plot(curves.mean(axis=1), color=style.color, lw=style.width, zorder=style.order + 5, marker=mark)
            tidy(axis)
            axis.set(xlabel="epoch", ylabel=LABELS[quantity])
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.label_outer()
    for axis, split in zip(axes[0], splits, strict=True):
        axis.set_title(f"split {split}", loc="left", size=9.5)
    figure.align_ylabels()
    used = {run.trainer for run, _ in logs}
    legend(figure, line_handles([style for name, style in looks.items() if name in used], markers=False))
    return to_png(figure)
