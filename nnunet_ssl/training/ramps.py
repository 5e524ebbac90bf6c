"""Ramps: weights as functions of training progress in [0, 1], so that length and resuming need no care."""

from __future__ import annotations

import math


def sigmoid_rampup(progress: float) -> float:
    """exp(-5 (1 - clip(progress, 0, 1))^2): 0.0067 at the start, 1 at the end.

    Source: the ramp of Laine & Aila, "Temporal ensembling" (ICLR 2017), as used by Mean Teacher and its successors.
    """
    return math.exp(-5.0 * (1.0 - min(max(progress, 0.0), 1.0)) ** 2)


def linear_rampup(progress: float, start: float = 0.0) -> float:
    """0 until ``start``, then in a straight line to 1 at the end of training."""
    return min(max((progress - start) / max(1.0 - start, 1e-9), 0.0), 1.0)
