"""`nnunet_ssl plans` with other defaults: a copy of nnU-Net's plans whose network a CPU can train.

    python benchmarks/small_plans.py -d 4 --patch 32 40 32                              # 3d_fullres, nnUNetPlans_small
    python benchmarks/small_plans.py -d 27 -c 2d --spacing 3.125 --patch 96 96 --batch 8 --features 8 16 32 64 64

All options are those of `nnunet_ssl plans`; -c is 3d_fullres, --batch 2 and --name nnUNetPlans_small unless given.
"""

from __future__ import annotations

import sys

from nnunet_ssl import cli

DEFAULTS = ("-c", "3d_fullres", "--batch", "2", "--name", "nnUNetPlans_small")


def main() -> int:
    return cli.main(["plans", *DEFAULTS, *sys.argv[1:]])  # the last one of an option counts


if __name__ == "__main__":
    sys.exit(main())
