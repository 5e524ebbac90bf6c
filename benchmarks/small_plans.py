"""Write a copy of nnU-Net's plans with few, narrow stages, which a CPU can train: for comparisons without a GPU.

    python benchmarks/small_plans.py -d 4 -c 3d_fullres --patch 32 40 32 --features 8 16 32 64 --name nnUNetPlans_small

The stages are the first ones of the plan's own, with its strides and kernel sizes. The preprocessed data are those of
the plans copied from.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", required=True, help="dataset id or name")
    parser.add_argument("-c", default="3d_fullres", help="configuration")
    parser.add_argument("-p", default="nnUNetPlans", help="plans to copy")
    parser.add_argument("--name", default="nnUNetPlans_small", help="name of the copy")
    parser.add_argument("--patch", type=int, nargs="+", required=True, help="voxels per axis")
    parser.add_argument("--batch", type=int, default=2, help="patches per step")
    parser.add_argument("--features", type=int, nargs="+", default=[8, 16, 32, 64], help="channels of each stage")
    return parser.parse_args()


def shrunk(plans: dict, configuration: str, patch: list[int], batch: int, features: list[int], name: str) -> dict:
    """The plans with the first ``len(features)`` stages of one configuration, and no other configuration.

    Raises:
        SystemExit: the configuration has too few stages, or the strides do not divide the patch.
    """
    settings = plans["configurations"][configuration]
    network = settings["architecture"]["arch_kwargs"]
    stages = len(features)
    if stages > network["n_stages"]:
        sys.exit(f"{configuration} has {network['n_stages']} stages, fewer than --features names.")
    network["n_stages"], network["features_per_stage"] = stages, features
    for key in ("kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage"):
        if key in network:
            network[key] = network[key][:stages]
    network["n_conv_per_stage_decoder"] = network["n_conv_per_stage_decoder"][: stages - 1]
    for axis, size in enumerate(patch):
        divisor = 1
        for stride in network["strides"]:
            divisor *= stride[axis]
        if size % divisor:
            sys.exit(
                f"--patch: axis {axis} has {size} voxels, which its strides do not divide; a multiple of {divisor}."
            )
    settings["patch_size"], settings["batch_size"] = patch, batch
    return plans | {"plans_name": name, "configurations": {configuration: settings}}


def main() -> None:
    args = arguments()
    folder = Path(nnUNet_preprocessed, maybe_convert_to_dataset_name(int(args.d) if args.d.isdigit() else args.d))
    plans = json.loads((folder / f"{args.p}.json").read_text())
    target = folder / f"{args.name}.json"
    target.write_text(json.dumps(shrunk(plans, args.c, args.patch, args.batch, args.features, args.name), indent=2))
    print(f"Wrote {target}")


if __name__ == "__main__":
    main()
