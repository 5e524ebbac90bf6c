"""The command `nnunet_ssl`: semi-supervised training for nnU-Net v2, in the dialect of nnU-Net's own commands."""

from __future__ import annotations

import argparse
import importlib
import io
import signal
import sys
from collections.abc import Sequence

from nnunet_ssl import __version__
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.system.failures import find_failure

COMMANDS = {
    "path": "print the value for nnUNet_extTrainer, so that nnU-Net finds the trainers",
    "preprocess": "preprocess the images without labels (imagesUn) with the plans of the labelled cases",
    "splits": "write splits_ssl.json: which training cases keep their label, per fold",
    "plans": "write a copy of a plans file that carries a split and the settings of the trainers",
    "methods": "list the trainers: paper, what predicts, 2D/3D, extra memory and time",
    "predict-as-paper": "predict images with the windows of a publication, as the plans say",
    "evaluate": "metrics of predictions against reference labels, per case and class",
    "benchmark": "trainers x splits x folds x seeds as jobs that are run once, evaluated and reported",
    "headroom": "will images without labels help? the learning curve of the labelled cases",
    "selftrain": "rounds of stock nnU-Net: label the unlabelled images, keep what is certain, train again",
    "report": "tables, figures and one HTML page of a benchmark, with differences to the control",
    "figure": "pictures of publications: embeddings of patches, labels on the image",
    "doctor": "check the installation, the paths and, with -d, a dataset",
    "demo": "run everything once on a small synthetic dataset and show the result",
}

INTERRUPTED = 128 + signal.SIGINT  # the exit code that shells give, too


def build_parser(selected: str | None) -> argparse.ArgumentParser:
    """The parser with all subcommands; only the selected one is imported, so that `path` stays quick."""
    parser = argparse.ArgumentParser(prog="nnunet_ssl", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name == selected:
            module = importlib.import_module(f"nnunet_ssl.commands.{name.replace('-', '_')}")
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code: 0, 1 after an error that was explained on stderr, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):  # a terminal that knows ASCII only is no reason to end
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    selected = next((a for a in arguments if a in COMMANDS), None)
    try:
        args = build_parser(selected).parse_args(arguments)
        return int(args.run(args) or 0)
    except (SemiSupervisedError, OSError) as error:
        print(f"nnunet_ssl {selected}: {_explain(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would print a traceback while Python ends
        text = "interrupted; what is finished is kept, run the command again"
        print(f"\nnnunet_ssl {selected}: {text}", file=sys.stderr)
        return INTERRUPTED


def _explain(error: SemiSupervisedError | OSError) -> str:
    """Our errors are complete; those of the system become `path: reason`."""
    error = find_failure(error) or error
    if isinstance(error, SemiSupervisedError) or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror


if __name__ == "__main__":
    sys.exit(main())
