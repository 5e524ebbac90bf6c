"""`nnunet_ssl path`."""

from __future__ import annotations

import argparse
import os

from nnunet_ssl.discovery import VARIABLE, ext_trainer_value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"Use: export {VARIABLE}=$(nnunet_ssl path)"


def run(args: argparse.Namespace) -> None:
    print(ext_trainer_value(os.environ.get(VARIABLE)))
