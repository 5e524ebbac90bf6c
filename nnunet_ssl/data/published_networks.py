"""Networks of publications as nnU-Net's plans name them, for `nnunet_ssl plans --network NAME`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

VNET = f"{__package__.split('.')[0]}.architectures.vnet.VNet"  # a name for nnU-Net, which imports it
UNET = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
STAGES = 5
DIVISOR = 2 ** (STAGES - 1)  # of the patch, on every axis
REQUIRE_IMPORT = ["conv_op", "norm_op", "dropout_op", "nonlin"]

WITH_CONVOLUTIONS = {"n_conv_per_stage": [1, 2, 3, 3, 3], "n_conv_per_stage_decoder": [3, 3, 2, 1]}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    # UA-MT's code, followed by DKUXNet's baselines and by Dual Networks
    "vnet16": (VNET, {"features_per_stage": [16, 32, 64, 128, 256], "nonlin": "torch.nn.ReLU", **WITH_CONVOLUTIONS}),
    # DHC's and SKCDF's code
    "vnet32": (
        VNET,
        {
            "features_per_stage": [32, 64, 128, 256, 512],
            "nonlin": "torch.nn.ReLU",
            "weight_init": "xavier",
            **WITH_CONVOLUTIONS,
        },
    ),
    # SSL4MIS' code, from which PLGCL's descends
    "unet16": (
        UNET,
        {
            "features_per_stage": [16, 32, 64, 128, 256],
            "nonlin": "torch.nn.LeakyReLU",
            "n_conv_per_stage": [2] * STAGES,
            "n_conv_per_stage_decoder": [2] * (STAGES - 1),
        },
    ),
}
"""Name -> class, and what tells its arguments from those of the others."""


def architecture(
    name: str, dimensions: int, dropout: float | None, features: Sequence[int] | None = None
) -> dict[str, Any]:
    """The block ``architecture`` of a configuration: five stages, kernels of 3, strides of 2, batch norm.

    Args:
        name: key of ``NETWORKS``.
        dimensions: of the patch, 2 or 3.
        dropout: of whole channels; None: without.
        features: channels of each of the stages; None: as published.
    """
    kind, own = NETWORKS[name]
    arguments = {
        "n_stages": STAGES,
        "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
        "kernel_sizes": [[3] * dimensions for _ in range(STAGES)],
        "strides": [[1 if stage == 0 else 2] * dimensions for stage in range(STAGES)],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.batchnorm.BatchNorm{dimensions}d",
        "norm_op_kwargs": {},
        "dropout_op": None if dropout is None else f"torch.nn.modules.dropout.Dropout{dimensions}d",
        "dropout_op_kwargs": None if dropout is None else {"p": dropout},
        "nonlin_kwargs": {"inplace": True},
        **copy.deepcopy(own),
    }
    if features is not None:
        arguments["features_per_stage"] = list(features)
    return {"network_class_name": kind, "arch_kwargs": arguments, "_kw_requires_import": REQUIRE_IMPORT}


def recognised(block: Mapping[str, Any]) -> tuple[str, float | None, list[int] | None] | None:
    """(name, dropout, features) with which :func:`architecture` makes this block, or ``None``."""
    arguments = block["arch_kwargs"]
    dropout = (arguments.get("dropout_op_kwargs") or {}).get("p")
    features = arguments.get("features_per_stage")
    for name, (_, own) in NETWORKS.items():
        dimensions = len((arguments.get("strides") or [[]])[0])
        if dimensions in (2, 3) and architecture(name, dimensions, dropout, features) == dict(block):
            return name, dropout, None if features == own["features_per_stage"] else features
    return None
