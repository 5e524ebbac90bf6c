"""`nnunet_ssl path`."""

from __future__ import annotations

import argparse
import os
import sys

from nnunet_ssl.discovery import VARIABLE, ext_trainer_value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"Use: export {VARIABLE}=$(nnunet_ssl path)"


def run(args: argparse.Namespace) -> None:
    value = ext_trainer_value(os.environ.get(VARIABLE))
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(value) + b"\n")  # for the shell: no character of a path may be replaced
    sys.stdout.buffer.flush()
