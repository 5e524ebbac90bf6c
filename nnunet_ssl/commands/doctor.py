"""`nnunet_ssl doctor`."""

from __future__ import annotations

import argparse


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
    from nnunet_ssl.doctor.environment import environment_findings
    from nnunet_ssl.doctor.preflight import preflight_findings
    from nnunet_ssl.doctor.report import Section, is_wrong, render

    obstacles = preflight_findings()
    if obstacles:
        sections = [
            Section("Installation (nothing else can be examined before this is put right)", obstacles),
            Section("Environment", environment_findings()),
        ]
    else:
        from nnunet_ssl.doctor.examine import examine_dataset, examine_installation

        sections = examine_installation()
        if args.d is not None:
            sections += examine_dataset(args.d, args.p, args.c)
    print("Semi-supervised training for nnU-Net: examination\n\n" + render(sections))
    return int(is_wrong(sections))
