"""t-SNE of embeddings, a panel per checkpoint, a colour per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.lines import Line2D
from sklearn.manifold import TSNE

from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.report.drawing import COLORS, CONTROL_COLOR, MARKERS, legend, new_figure, to_png

PERPLEXITY = 30.0  # scikit-learn's default, where there are enough patches
LEAST = 4  # patches
SIDE = 3.2  # inches of a panel
PALETTE = (*COLORS, CONTROL_COLOR)


def with_tsne(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The table with the columns tsne_1 and tsne_2 before the coordinates.

    Args:
        table: of :meth:`PatchEmbedder.embed`.
        seed: of t-SNE.

    Raises:
        SemiSupervisedError: too few patches.
    """
    if len(table) < LEAST:
        raise complain(
            f"{len(table)} patches are too few for t-SNE.", remedy="Give more cases (--cases), or more --batches."
        )
    vectors = table.filter(regex=r"^e\d+$").to_numpy()
    perplexity = min(PERPLEXITY, (len(table) - 1) / 3)
    places = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(vectors)
    for column, values in enumerate(places.T):
        table.insert(2 + column, f"tsne_{column + 1}", values)
    return table


def draw(tables: Mapping[str, pd.DataFrame], classes: Sequence[str]) -> bytes:
    """PNG.

    Args:
        tables: title of a panel -> what :func:`with_tsne` returns.
        classes: in the order of their colours.
    """
    figure = new_figure(SIDE * len(tables) + 0.2, SIDE + 0.7)
    looks = {name: (PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]) for i, name in enumerate(classes)}
    for axis, (title, table) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
        for name, found in table.groupby("class", sort=False):
            color, marker = looks[str(name)]
            axis.scatter(found["tsne_1"], found["tsne_2"], s=14, color=color, marker=marker, linewidths=0, alpha=0.8)
        axis.set_title(f"{title}, {len(table)} patches", fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    shown = [name for name in classes if any((table["class"] == name).any() for table in tables.values())]
    legend(figure, [Line2D([], [], color=looks[n][0], marker=looks[n][1], linestyle="", label=n) for n in shown])
    return to_png(figure)
