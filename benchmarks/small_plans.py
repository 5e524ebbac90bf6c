"""Write a copy of nnU-Net's plans with few, narrow stages, which a CPU can train: for comparisons without a GPU.

    python benchmarks/small_plans.py -d 4 -c 3d_fullres --patch 32 40 32 --features 8 16 32 64 --name nnUNetPlans_small

The stages are the first ones of the plan's own, with its strides and kernel sizes. The preprocessed data are those of
the plans copied from.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

from nnunet_ssl.data.folders import write_json
from nnunet_ssl.data.text_files import read_json
from nnunet_ssl.planning.small_network import FEATURES, with_small_network


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", required=True, help="dataset id or name")
    parser.add_argument("-c", default="3d_fullres", help="configuration")
    parser.add_argument("-p", default="nnUNetPlans", help="plans to copy")
    parser.add_argument("--name", default="nnUNetPlans_small", help="name of the copy")
    parser.add_argument("--patch", type=int, nargs="+", required=True, help="voxels per axis")
    parser.add_argument("--batch", type=int, default=2, help="patches per step")
    parser.add_argument("--features", type=int, nargs="+", default=[*FEATURES], help="channels of each stage")
    return parser.parse_args()


def shrunk(plans: dict, configuration: str, patch: list[int], batch: int, features: list[int], name: str) -> dict:
    """A copy of the plans with the first ``len(features)`` stages of one configuration, and no other configuration.

    Raises:
        SystemExit: the configuration has too few stages, or the strides do not divide the patch.
    """
    network, stages = plans["configurations"][configuration]["architecture"]["arch_kwargs"], len(features)
    if stages > network["n_stages"]:
        sys.exit(f"{configuration} has {network['n_stages']} stages, fewer than --features names.")
    divisors = np.prod(network["strides"][:stages], axis=0)
    for axis, (size, divisor) in enumerate(zip(patch, divisors, strict=True)):
        if size % divisor:
            sys.exit(f"--patch: axis {axis} has {size} voxels; its strides ask for a multiple of {divisor}.")
    per_stage = ("kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage")
    first = {key: network[key][:stages] for key in per_stage if key in network}
    first["n_conv_per_stage_decoder"] = network["n_conv_per_stage_decoder"][: stages - 1]
    return with_small_network(
        plans, configuration, name, patch, batch, n_stages=stages, features_per_stage=features, **first
    )


def main() -> None:
    args = arguments()
    folder = Path(nnUNet_preprocessed, maybe_convert_to_dataset_name(int(args.d) if args.d.isdigit() else args.d))
    plans = read_json(folder / f"{args.p}.json", dict)
    target = folder / f"{args.name}.json"
    write_json(str(target), shrunk(plans, args.c, args.patch, args.batch, args.features, args.name))
    print(f"Wrote {target}")


if __name__ == "__main__":
    main()
