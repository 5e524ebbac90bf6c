"""Plans for a training without a GPU: a copy with a narrow network and a small patch, as README's section has it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

from nnunet_ssl.planning.small_network import MIN_EDGE

NARROW = 32  # channels of the first stage with which nnU-Net's planners begin
MOST_VOXELS = {2: 96 * 96, 3: 32 * 40 * 32}  # of a patch, with which a step takes fractions of a second
BATCH = {2: 8, 3: 2}
TRAINING = "num_epochs=8 optimizer=adamw initial_lr=0.003"  # 2000 steps
STEP = 8  # voxels between the edges that are tried


def cpu_patch(configuration: dict[str, Any]) -> tuple[int, ...] | None:
    """The patch of such a copy, in voxels per axis of the configuration.

    The longest edges of the plans' patch are cut until it has as few voxels as MOST_VOXELS says; then every edge is
    rounded up to what the strides of a network for that patch divide, by nnU-Net's rules.

    Args:
        configuration: of plans, with all that it inherits.

    Returns:
        ``None`` where no copy is needed, or none can be made: the network is narrower than nnU-Net plans it, or none
        of nnU-Net's U-Nets, or it is a stage of a cascade.
    """
    features = configuration.get("architecture", {}).get("arch_kwargs", {}).get("features_per_stage")
    if not features or features[0] < NARROW or configuration.get("previous_stage") is not None:
        return None
    sizes = zip(configuration["patch_size"], configuration["median_image_size_in_voxels"], strict=True)
    whole = [max(1, min(int(size), math.ceil(median))) for size, median in sizes]
    longest = next((edge for edge in range(_up(max(whole)), STEP, -STEP) if _fits(whole, edge)), STEP)
    return _divisible(configuration["spacing"], [min(size, longest) for size in whole])


def _fits(whole: Sequence[int], longest: int) -> bool:
    return math.prod(min(size, longest) for size in whole) <= MOST_VOXELS[len(whole)]


def _up(size: int) -> int:
    return math.ceil(size / STEP) * STEP


def _divisible(spacing: Sequence[float], wanted: Sequence[int]) -> tuple[int, ...]:
    """The same, or larger where the strides ask for it; a larger patch may have one stride more."""
    while True:
        padded = get_pool_and_conv_props(spacing, wanted, MIN_EDGE, 999)[3]
        if np.array_equal(padded, wanted):
            return tuple(int(size) for size in wanted)
        wanted = [int(size) for size in padded]
