"""`nnunet_ssl preprocess`: images without labels, for semi-supervised training."""

from __future__ import annotations

import argparse

from nnunetv2.configuration import default_num_processes

from nnunet_ssl.data.unlabeled import preprocess_unlabeled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Semi-supervised training: preprocess the images without labels in nnUNet_raw/DATASET/imagesUn with the plans "
        "of the labelled cases. All images are checked before any work. Repeat the command after adding images or "
        "after an interruption: finished cases are skipped."
    )
    parser.add_argument("-d", required=True, metavar="DATASET", help="dataset name or id")
    parser.add_argument(
        "-c",
        nargs="+",
        metavar="CONFIGURATION",
        help="configurations; default: all whose labelled cases are preprocessed",
    )
    parser.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans identifier; default: nnUNetPlans")
    parser.add_argument("-i", metavar="FOLDER", help="take the images from this folder instead of imagesUn")
    parser.add_argument(
        "-np",
        type=int,
        default=default_num_processes,
        metavar="N",
        help=f"number of processes; default: {default_num_processes} (nnUNet_def_n_proc), never more than cases",
    )
    parser.add_argument("--overwrite", action="store_true", help="preprocess finished cases again")


def run(args: argparse.Namespace) -> int:
    preprocess_unlabeled(args.d, args.c, args.p, args.i, args.np, args.overwrite)
    return 0
