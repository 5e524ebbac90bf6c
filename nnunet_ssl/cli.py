"""The command `nnunet_ssl`: semi-supervised training for nnU-Net v2, in the dialect of nnU-Net's own commands."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from nnunet_ssl import __version__
from nnunet_ssl.errors import SemiSupervisedError

COMMANDS = {
    "path": "print the value for nnUNet_extTrainer, so that nnU-Net finds the trainers",
    "preprocess": "preprocess the images without labels (imagesUn) with the plans of the labelled cases",
    "splits": "write splits_ssl.json: which training cases keep their label, per fold",
    "plans": "write a copy of a plans file that carries a split and the settings of the trainers",
    "methods": "list the trainers: paper, what predicts, 2D/3D, extra memory and time",
    "doctor": "check the installation, the paths and, with -d, a dataset",
    "demo": "run everything once on a small synthetic dataset and show the result",
}


def build_parser(selected: str | None) -> argparse.ArgumentParser:
    """The parser with all subcommands; only the selected one is imported, so that `path` stays quick."""
    parser = argparse.ArgumentParser(prog="nnunet_ssl", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name == selected:
            module = importlib.import_module(f"nnunet_ssl.commands.{name}")
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code: 0, or 1 after an error that was explained on stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    selected = next((a for a in arguments if a in COMMANDS), None)
    args = build_parser(selected).parse_args(arguments)
    try:
        return int(args.run(args) or 0)
    except SemiSupervisedError as error:
        print(f"nnunet_ssl {args.command}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
