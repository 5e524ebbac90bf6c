"""DKUXNet as the network of a trainer: its arguments from settings and plans, and its queries in groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_ssl.architectures.dkuxnet import DKUXNet
from nnunet_ssl.architectures.uxnet import arguments_from_plans
from nnunet_ssl.trainers.dkuxnet.settings import NETWORK_OPTIONS, DKUXNetSupervisedHyperparameters


def network_arguments(hp: DKUXNetSupervisedHyperparameters, configuration: ConfigurationManager) -> dict[str, Any]:
    """The settings block's options of the network, without deep supervision; what plans that name it say wins."""
    options = {name: getattr(hp, name) for name in NETWORK_OPTIONS}
    options["pixel_widths"] = (hp.pixel_width, hp.mask_width)
    return options | arguments_from_plans(
        DKUXNet,
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
    )


def check_groups(sizes: Sequence[int], groups: int, queries: int, most: int) -> None:
    """Raise ValueError for more groups than allowed, or sizes that are not those of the queries."""
    fits = len(sizes) == groups <= most and sum(sizes) == queries
    if not fits or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise ValueError(
            f"{queries} queries cannot form {groups} groups of sizes {sizes}; at most {most} groups are allowed here "
            "(settings queries, groups, group_sizes)"
        )


def group_sizes(queries: int, groups: int) -> list[int]:
    """Queries per group: half for the background; of the rest, equal parts, but a quarter and three of three groups.

    Source: recommended; released 16, 4 and the rest of 128.
    """
    background = queries // 2
    rest = queries - background
    if groups == 3:
        first = max(1, queries // 8)
        return [background, first, rest - first]
    equal = rest // max(1, groups - 1)
    return [background, *[equal] * (groups - 2), rest - equal * (groups - 2)]
