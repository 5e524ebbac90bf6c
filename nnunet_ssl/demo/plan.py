"""Plans for the demo: nnU-Net's own, with a network small enough to train on a CPU within minutes."""

from __future__ import annotations

import copy
from typing import Any

FEATURES = (8, 16, 32, 64)


def shrink_plans(plans: dict[str, Any], configuration: str, name: str) -> dict[str, Any]:
    """A copy of a plans dictionary with nnU-Net's U-Net cut to four narrow stages, and a patch that these can halve.

    The configuration keeps its data_identifier: the preprocessed data serve both plans. The other configurations are
    left out. nnU-Net's planner offers no such setting: even its smallest memory target gives 32 features and more.

    Raises:
        KeyError: the plans lack the configuration.
    """
    result = copy.deepcopy(plans)
    result["plans_name"] = name
    result["configurations"] = {configuration: result["configurations"][configuration]}
    settings = result["configurations"][configuration]
    stages = len(FEATURES)
    unit = 2 ** (stages - 1)
    settings["patch_size"] = [max(unit, int(size) // unit * unit) for size in settings["median_image_size_in_voxels"]]
    settings["batch_size"] = 2
    settings["architecture"]["arch_kwargs"].update(
        n_stages=stages,
        features_per_stage=list(FEATURES),
        kernel_sizes=[[3, 3, 3]] * stages,
        strides=[[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
        n_conv_per_stage=[2] * stages,
        n_conv_per_stage_decoder=[2] * (stages - 1),
    )
    return result
