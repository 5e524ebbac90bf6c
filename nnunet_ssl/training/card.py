"""The few facts about a method that `nnunet_ssl methods` and the documentation show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MethodCard:
    """One row of the table of trainers.

    Attributes:
        paper: authors, title or venue and year.
        predicts: which network ends up in the checkpoint.
        dimensions: "2D, 3D" or a restriction.
        extra_memory: beyond nnU-Net on the same number of patches.
        extra_time: ratio to nnU-Net's step on the same number of patches.
    """

    paper: str
    predicts: str
    dimensions: str
    extra_memory: str
    extra_time: str
