"""Plans for the demo: nnU-Net's own, with a network small enough to train on a CPU within minutes."""

from __future__ import annotations

from typing import Any

from nnunet_ssl.planning.small_network import FEATURES, with_small_network


def shrink_plans(plans: dict[str, Any], configuration: str, name: str) -> dict[str, Any]:
    """A copy of a plans dictionary with nnU-Net's U-Net cut to four narrow stages, and a patch that these can halve.

    Raises:
        KeyError: the plans lack the configuration.
    """
    stages = len(FEATURES)
    unit = 2 ** (stages - 1)
    median = plans["configurations"][configuration]["median_image_size_in_voxels"]
    return with_small_network(
        plans,
        configuration,
        name,
        [max(unit, int(size) // unit * unit) for size in median],
        n_stages=stages,
        features_per_stage=list(FEATURES),
        kernel_sizes=[[3, 3, 3]] * stages,
        strides=[[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
        n_conv_per_stage=[2] * stages,
        n_conv_per_stage_decoder=[2] * (stages - 1),
    )
