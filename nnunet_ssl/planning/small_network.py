"""Copies of nnU-Net's plans whose network is small enough for a CPU, for the demo and for comparisons without a GPU."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

FEATURES = (8, 16, 32, 64)


def with_small_network(
    plans: dict[str, Any],
    configuration: str,
    name: str,
    patch_size: Sequence[int],
    batch_size: int = 2,
    **network: Any,
) -> dict[str, Any]:
    """A copy with one configuration, and in that another patch, batch and network.

    The configuration keeps its data_identifier: the preprocessed data serve both plans. nnU-Net's planner offers no
    such setting: even its smallest memory target gives 32 features and more.

    Args:
        plans: of nnU-Net; they stay as they are.
        name: of the copy.
        network: arguments of the network that change, as in the plans' ``arch_kwargs``.

    Raises:
        KeyError: the plans lack the configuration.
    """
    settings = copy.deepcopy(plans["configurations"][configuration])
    settings |= {"patch_size": list(patch_size), "batch_size": batch_size}
    settings["architecture"]["arch_kwargs"] |= network
    return copy.deepcopy(plans) | {"plans_name": name, "configurations": {configuration: settings}}
