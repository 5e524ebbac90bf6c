"""`nnunet_ssl doctor`."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Check what semi-supervised training with nnU-Net needs: versions, folders, whether nnU-Net finds the "
        "trainers, device; with -d also the data, splits and settings of a dataset. Says what to do about each "
        "problem and changes nothing. Exit code 1 if something is wrong."
    )
    parser.add_argument("-d", metavar="DATASET", help="dataset id or name")
    parser.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans to look at (default: nnUNetPlans)")
    parser.add_argument("-c", nargs="+", metavar="CONFIGURATION", help="only these configurations (default: all)")


def run(args: argparse.Namespace) -> int:
    from nnunet_ssl.doctor.examination import examine_in_child
    from nnunet_ssl.doctor.report import is_wrong, render
    from nnunet_ssl.trainers import TRAINERS

    what = "" if args.d is None else f", then dataset {args.d}"
    print(
        f"PyTorch and nnU-Net are imported, {len(TRAINERS)} trainers looked up{what} ...", file=sys.stderr, flush=True
    )
    sections = examine_in_child(args.d, args.p, args.c)
    print("Semi-supervised training for nnU-Net: examination\n\n" + render(sections))
    return int(is_wrong(sections))
