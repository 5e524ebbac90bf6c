"""As many threads on a CPU as the user or the cluster grants."""

from __future__ import annotations

import os

import torch

GRANTED = "OMP_NUM_THREADS"


def keep_to_granted_threads() -> None:
    """Give PyTorch the threads of OMP_NUM_THREADS where that is set.

    On a CPU nnUNetv2_train takes one per core whatever the variable says. Two training runs that share the cores then
    wait for each other's threads in every layer, which takes several times as long as one after the other.
    """
    granted = os.environ.get(GRANTED, "").split(",")[0].strip()
    if granted.isdecimal() and int(granted) > 0:
        torch.set_num_threads(int(granted))


__all__ = ["keep_to_granted_threads"]
