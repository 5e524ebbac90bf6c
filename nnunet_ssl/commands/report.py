"""`nnunet_ssl report`: the table, the figures and the page of a benchmark."""

from __future__ import annotations

import argparse
import os

from nnunet_ssl.evaluation.report.quantities import QUANTITIES
from nnunet_ssl.evaluation.report.write import CONTROL, METRICS, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Read a benchmark of semi-supervised trainers and write index.html (one page, opens without network), the "
        "tables as report.md, report.csv and report.tex, and the figures as PNG. Training runs that are not "
        "complete are named with the reason."
    )
    parser.add_argument("folder", metavar="OUT", help="the folder that `nnunet_ssl benchmark ... -o OUT` wrote")
    parser.add_argument("-o", metavar="FOLDER", help="where to write (default: OUT/report)")
    parser.add_argument(
        "--metric", nargs="+", default=list(METRICS), choices=list(QUANTITIES), help="what to show (default: dice hd95)"
    )
    parser.add_argument(
        "--cases", nargs="+", metavar="ID", help="cases to show as pictures (default: the control's median and worst)"
    )
    parser.add_argument(
        "--control", default=CONTROL, metavar="TRAINER", help=f"compare the others with this one (default: {CONTROL})"
    )


def run(args: argparse.Namespace) -> int:
    output = write_report(args.folder, args.o, metrics=args.metric, cases=args.cases, control=args.control)
    page = os.path.abspath(os.path.join(output, "index.html"))
    print(f"Report of the semi-supervised benchmark: {page}\nTables: report.md, report.csv, report.tex beside it.")
    return 0
