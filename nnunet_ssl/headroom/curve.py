"""The learning curve of the control in numbers, and what follows for images without labels in a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from nnunet_ssl.evaluation.report.aggregate import compare, foreground
from nnunet_ssl.evaluation.report.fraction_figure import position
from nnunet_ssl.evaluation.report.quantities import QUANTITIES
from nnunet_ssl.evaluation.report.tables import FOREGROUND, Table

METRIC = "dice"


def curve_of(tables: Sequence[Table], subjects: Mapping[str, str]) -> pd.DataFrame:
    """One row per number of labelled cases, in rising order.

    Args:
        tables: of the control alone, with METRIC, one per split.
        subjects: case -> subject, whose whole cases the intervals draw.

    Returns:
        labeled (mean over folds), trainings, cases, dice, dice_low, dice_high, and the gain over the row before:
        gain, gain_low, gain_high. Overlaps are fractions, intervals 95 % bootstrap intervals over validation cases.
    """
    rows, before = list[dict[str, float | None]](), None
    for table in sorted(tables, key=position):
        (numbers,) = table.of_class(FOREGROUND).values()
        row = {key: numbers[METRIC][key] for key in ("trainings", "cases", "mean", "mean_low", "mean_high")}
        values = foreground(table.values, METRIC)
        gain: dict[str, float | None] = {} if before is None else compare(values, before, subjects)
        row |= {f"gain{end}": gain.get(f"difference{end}") for end in ("", "_low", "_high")}
        rows.append({"labeled": position(table), **row})
        before = values
    names = {"mean": METRIC, "mean_low": f"{METRIC}_low", "mean_high": f"{METRIC}_high"}
    return pd.DataFrame(rows).rename(columns=names)


def conclusion(curve: pd.DataFrame, unlabeled: int) -> str:
    """How much more labels brought, hence the most that images without labels can bring.

    The last step of the curve is taken as its slope per doubling of the labels. Learning curves flatten, so that this
    is rather too much for further doublings.

    Args:
        curve: of :func:`curve_of`.
        unlabeled: number of images without labels; 0: as many as the labelled ones are assumed.
    """
    before, last = curve.iloc[-2], curve.iloc[-1]
    text = QUANTITIES[METRIC].text
    gain, low, high = (last[name] for name in ("gain", "gain_low", "gain_high"))
    interval = "" if pd.isna(low) else f" (95 % interval {text(low, signed=True)} to {text(high, signed=True)})"
    measured = (
        f"With {_listed(curve['labeled'].map('{:g}'.format))} labelled cases the Dice is "
        f"{_listed(curve[METRIC].map(text))} %, the last step being {text(gain, signed=True)} points{interval}"
    )
    if not (gain if pd.isna(low) else low) > 0:
        return (
            f"{measured}. The last labels brought no gain that can be distinguished from chance, and images without "
            "labels cannot be expected to bring more than labels do."
        )
    more = unlabeled or last["labeled"]
    doublings = math.log2(1 + more / last["labeled"]) / math.log2(last["labeled"] / before["labeled"])
    most, upper = (text(min(value * doublings, 1 - last[METRIC])) for value in (gain, gain if pd.isna(high) else high))
    end = "" if pd.isna(high) else f" ({upper} at the upper end of the interval)"
    images = f"the {unlabeled} images without labels" if unlabeled else "as many images again"
    return (
        f"{measured}. At this slope, labelling {images} would add about {most} points{end}. Used without labels, they "
        "can hardly add more."
    )


def _listed(texts: Iterable[str]) -> str:
    *first, last = texts
    return f"{', '.join(first)} and {last}"
