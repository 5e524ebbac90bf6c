"""`nnunet_ssl demo`: semi-supervised training from end to end, on synthetic data."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_ssl.demo.options import EPOCHS, Options, check_options
from nnunet_ssl.demo.synthetic import STANDARD_SIZES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    sizes = STANDARD_SIZES
    parser.description = (
        "Semi-supervised training on a small synthetic dataset, with the commands you would type yourself: preprocess, "
        f"train the control on {sizes.labeled} labelled cases and a semi-supervised trainer with {sizes.unlabeled} "
        f"unlabelled ones in addition, predict {sizes.test} test cases, evaluate. Shows a table and writes a picture. "
        "About ten minutes on two CPU cores."
    )
    parser.add_argument("-o", default="demo_output", metavar="FOLDER", help="output folder (default: demo_output)")
    parser.add_argument("-d", type=int, default=999, metavar="ID", help="dataset id in that folder (default: 999)")
    parser.add_argument(
        "-tr",
        default=Options.trainer,
        metavar="TRAINER",
        help=f"the semi-supervised trainer (default: {Options.trainer})",
    )
    parser.add_argument(
        "-device",
        "--device",
        default="cpu",
        choices=("cpu", "cuda", "mps"),
        help="as for nnU-Net (default: cpu)",
    )
    parser.add_argument(
        "--epochs", type=int, default=EPOCHS, metavar="N", help=f"length of both training runs (default: {EPOCHS})"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic patients (default: 0)")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="start afresh in a folder of an earlier demo; without it, finished steps are skipped and a step that was "
        "interrupted starts over",
    )


def run(args: argparse.Namespace) -> int:
    options = Options(Path(args.o).absolute(), args.d, args.tr, args.device, args.epochs, args.seed)
    check_options(options)
    from nnunet_ssl.demo.runner import run_demo

    run_demo(options, args.overwrite)
    return 0
