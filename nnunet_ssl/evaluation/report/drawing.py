"""What all figures share: one look, one colour and marker per trainer, PNG in memory."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nnunet_ssl.evaluation.report.quantities import short_name

# Okabe & Ito's palette, whose colours differ in every kind of colour vision (https://jfly.uni-koeln.de/color/). Yellow
# is left out because it is hard to see on white. Where a colour is used again, the marker is another one.
CONTROL_COLOR = "#E69F00"
COLORS = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C8C8C")
MARKERS = ("o", "^", "D", "v", "P", "X", "*")
DPI = 144
TEXT, LINES = "#222222", "#DDDDDD"
LEGEND_ENTRY = 1.8  # inches of width


@dataclass(frozen=True)
class Style:
    """How one trainer is drawn in every figure. ``width`` of lines in points, ``order``: higher is in front."""

    label: str
    color: str
    marker: str
    width: float
    order: int


def styles(trainers: Sequence[str], control: str) -> dict[str, Style]:
    """The style of every trainer; the control is thicker, in front and always of the same colour."""
    result = {}
    others = [name for name in trainers if name != control]
    if control in trainers:
        result[control] = Style(f"{short_name(control)} (control)", CONTROL_COLOR, "s", 2.6, 3)
    for index, name in enumerate(others):
        color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
        result[name] = Style(short_name(name), color, marker, 1.6, 2)
    return result


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, unknown to pyplot's global state."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: Figure) -> bytes:
    """The same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def tidy(axis: Axes) -> None:
    """Thin grey lines to read values by, no frame."""
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color("#888888")
    axis.grid(axis="y", color=LINES, linewidth=0.7)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=8, colors=TEXT)
    for label in (axis.xaxis.label, axis.yaxis.label):
        label.set_fontsize(9)
        label.set_color(TEXT)


def legend(figure: Figure, handles: Sequence[Any]) -> None:
    """Below everything, without a frame."""
    columns = max(1, min(len(handles), int(figure.get_figwidth() / LEGEND_ENTRY)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def line_handles(used: Sequence[Style], markers: bool = True) -> list[Line2D]:
    """Legend entries of lines."""
    return [
        Line2D(
            [], [], color=s.color, linewidth=s.width, marker=s.marker if markers else "", markersize=6, label=s.label
        )
        for s in used
    ]
