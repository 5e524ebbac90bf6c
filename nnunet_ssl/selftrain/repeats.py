"""How often labelled cases are repeated, so that students do not drown them in pseudo-labels."""

from __future__ import annotations

import math


def repeats(share: float, pseudo: int, labeled: int) -> int:
    """How often each labelled case stands in the list that nnU-Net draws cases from, uniformly.

    The smallest number, at least 1, with which labelled cases are at least ``share`` of the list:
    r l / (r l + p) >= s, so r >= s / (1 - s) p / l.

    Args:
        share: in [0, 1).
        pseudo: number of cases with pseudo-labels.
        labeled: number of labelled cases, at least 1.
    """
    return max(1, math.ceil(share / (1 - share) * pseudo / labeled - 1e-9))
