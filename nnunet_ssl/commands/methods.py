"""`nnunet_ssl methods`."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the semi-supervised trainers: paper, which network predicts, 2D/3D, memory and time per training step "
        "beyond nnU-Net on the same number of patches. With -tr, the hyper-parameters of one trainer. With --for, the "
        "trainer that the project's own measurements recommend for a dataset."
    )
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("-tr", metavar="TRAINER", help="show this trainer's hyper-parameters")
    chosen.add_argument(
        "--for", dest="dataset", metavar="DATASET", help="recommend a trainer for this dataset (id or name)"
    )
    only = parser.add_argument_group("with --for")
    only.add_argument(
        "-c", dest="configuration", help="configuration (default: 3d_fullres, or 2d where there is no 3D)"
    )
    only.add_argument("-p", dest="plans", default="nnUNetPlans", help="plans (default: %(default)s)")
    only.add_argument("--split", help="name of a split made by `nnunet_ssl splits`, whose labels count")


def run(args: argparse.Namespace) -> int:
    from rich.console import Console

    console = Console(markup=False, highlight=False, emoji=False)
    if args.dataset is not None:
        from nnunet_ssl.recommendation.choice import choose
        from nnunet_ssl.recommendation.evidence import evidence
        from nnunet_ssl.recommendation.facts import facts_of
        from nnunet_ssl.recommendation.show import show

        facts = facts_of(args.dataset, args.configuration, args.plans, args.split)
        show(facts, choose(facts, evidence()), args.plans, args.split, console)
        return 0
    from nnunet_ssl.methods import method_table, setting_table

    if args.tr is None:
        method_table(console)
    else:
        setting_table(args.tr, console)
    return 0
