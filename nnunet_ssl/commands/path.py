"""`nnunet_ssl path`."""

from __future__ import annotations

import argparse
import os
import sys

from nnunet_ssl.discovery import VARIABLE, ext_trainer_value
from nnunet_ssl.doctor.external_entries import entry_findings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"Use: export {VARIABLE}=$(nnunet_ssl path)"


def run(args: argparse.Namespace) -> None:
    current = os.environ.get(VARIABLE)
    sys.stdout.flush()
    # for the shell: no character of a path may be replaced
    sys.stdout.buffer.write(os.fsencode(ext_trainer_value(current)) + b"\n")
    sys.stdout.buffer.flush()
    for finding in entry_findings(current):
        print(f"nnunet_ssl path: {finding.text}\n-> {finding.remedy}", file=sys.stderr)
