"""`nnunet_ssl methods`."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the semi-supervised trainers: paper, which network predicts, 2D/3D, memory and time per training step "
        "beyond nnU-Net on the same number of patches. With -tr, the hyper-parameters of one trainer."
    )
    parser.add_argument("-tr", metavar="TRAINER", help="show this trainer's hyper-parameters")


def run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from nnunet_ssl.methods import method_table, setting_table

    console = Console(markup=False, highlight=False, emoji=False)
    if args.tr is None:
        method_table(console)
    else:
        setting_table(args.tr, console)
    return 0
