"""Draw docs/methods/diagrams/<method>.svg from diagrams.yaml: what a method feeds to what, and where gradients stop.

python docs/site/diagrams.py      # or: make docs-diagrams
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import yaml

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "methods" / "diagrams"
FILL = {
    "labeled": "#cfe2f7",
    "unlabeled": "#fbe0c4",
    "network": "#e3e3e8",
    "average": "#ffffff",
    "value": "#f7f7f7",
    "loss": "#d5ecd0",
}
ARROW = re.compile(r"(?P<start>\w+) (?P<kind>[>~]) (?P<end>\w+)(?:: (?P<text>.+))?")
COLUMN, ROW, WIDTH = 2.35, 0.95, 1.75  # inches


class Box(NamedTuple):
    kind: str
    text: str
    column: int
    x: float
    y: float

    @property
    def height(self) -> float:
        return 0.34 + 0.17 * self.text.count("\n")


class Arrow(NamedTuple):
    start: str
    end: str
    gradient: bool
    text: str


def read(content: list[Any]) -> tuple[dict[str, Box], list[Arrow]]:
    """Boxes by name, each column centred on the same height, and arrows.

    Raises:
        ValueError: an arrow that cannot be read, or of a box that there is not.
    """
    *columns, lines = content
    boxes = {
        name: Box(kind, text, c, c * COLUMN, ((len(column) - 1) / 2 - row) * ROW)
        for c, column in enumerate(columns)
        for row, (name, (kind, text)) in enumerate(column.items())
    }
    return boxes, list(_arrows(lines, boxes))


def _arrows(lines: list[str], boxes: dict[str, Box]) -> Iterator[Arrow]:
    for line in lines:
        found = ARROW.fullmatch(line)
        if found is None or not {found["start"], found["end"]} <= boxes.keys():
            raise ValueError(f"not an arrow between two boxes: {line}")
        yield Arrow(found["start"], found["end"], found["kind"] == ">", found["text"] or "")


def draw(content: list[Any], path: Path) -> None:
    """Write one diagram; its words stay text."""
    boxes, arrows = read(content)
    low, high = min(b.y for b in boxes.values()) - 0.5, max(b.y for b in boxes.values()) + 0.5
    right = max(b.x for b in boxes.values())
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nnunet_ssl", "font.family": "sans-serif"}):
        figure = plt.figure(figsize=(right + WIDTH + 0.2, high - low))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(-WIDTH / 2 - 0.1, right + WIDTH / 2 + 0.1), ylim=(low, high))
        axes.axis("off")
        for arrow in arrows:
            _arrow(axes, boxes[arrow.start], boxes[arrow.end], arrow)
        for box in boxes.values():
            _box(axes, box)
        figure.savefig(path, metadata={"Date": None, "Creator": None}, facecolor="white")
        plt.close(figure)


def _box(axes: Axes, box: Box) -> None:
    shape = f"round,pad=0,rounding_size={0.17 if box.kind == 'loss' else 0.05}"
    style = {"facecolor": FILL[box.kind], "edgecolor": "#555555", "linewidth": 0.9}
    corner = (box.x - WIDTH / 2, box.y - box.height / 2)
    dashed = "--" if box.kind == "average" else "-"
    axes.add_patch(FancyBboxPatch(corner, WIDTH, box.height, boxstyle=shape, linestyle=dashed, zorder=3, **style))
    axes.text(box.x, box.y, box.text, ha="center", va="center", fontsize=9, zorder=4)


def _arrow(axes: Axes, start: Box, end: Box, arrow: Arrow) -> None:
    color = "#333333" if arrow.gradient else "#9a9a9a"
    line = "-" if arrow.gradient else (0, (4, 2))
    if start.column == end.column:  # straight up or down
        side = 1 if end.y > start.y else -1
        begin, stop = (start.x, start.y + side * start.height / 2), (end.x, end.y - side * end.height / 2)
        if arrow.text:
            axes.text(start.x + 0.06, (begin[1] + stop[1]) / 2, arrow.text, fontsize=8, va="center", color="#555555")
    else:
        side = 1 if end.column > start.column else -1
        begin, stop = (start.x + side * WIDTH / 2, start.y), (end.x - side * WIDTH / 2, end.y)
        if arrow.text:
            axes.text((begin[0] + stop[0]) / 2, (begin[1] + stop[1]) / 2, arrow.text, fontsize=8, ha="center", zorder=5)
    axes.add_patch(
        FancyArrowPatch(
            begin, stop, arrowstyle="-|>", mutation_scale=9, color=color, linestyle=line, linewidth=1, zorder=2
        )
    )


def diagrams() -> dict[str, list[Any]]:
    """Method -> its entry of diagrams.yaml."""
    found: dict[str, list[Any]] = yaml.safe_load((HERE / "diagrams.yaml").read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    TARGET.mkdir(exist_ok=True)
    for name, content in diagrams().items():
        draw(content, TARGET / f"{name}.svg")
