"""`nnunet_ssl selftrain`: train, label the images without label, keep what is certain, train again."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from nnunet_ssl.commands.benchmark import add_resources, resources_of
from nnunet_ssl.evaluation.benchmark.cluster_scripts import KINDS
from nnunet_ssl.evaluation.benchmark.outcome import outcome_of_steps
from nnunet_ssl.evaluation.benchmark.run_local import Stopped, ended_by
from nnunet_ssl.evaluation.benchmark.start import RUNNERS
from nnunet_ssl.selftrain.cluster import write_only
from nnunet_ssl.selftrain.keys import Keys
from nnunet_ssl.selftrain.options import add_options, chosen_settings
from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.start import begin, run_all, run_single
from nnunet_ssl.selftrain.work import COMMAND


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Semi-supervised self-training with stock nnU-Net: train on the labelled cases, predict the images without "
        "label (imagesUn, and cases whose label a split withholds), keep what the teachers are sure of, train on both, "
        "several rounds. Every model is a plain nnU-Net. Run again, the command repeats nothing that is finished; "
        "with -o alone it continues the run in that folder."
    )
    parser.add_argument("-o", required=True, metavar="FOLDER", help="output folder of records, selections and report")
    add_options(parser)
    where = parser.add_argument_group("where it runs").add_mutually_exclusive_group()
    where.add_argument(
        "--run", choices=RUNNERS, dest="runner", default=RUNNERS[0], help="default: local, one step per GPU"
    )
    where.add_argument("--write", choices=KINDS, help="only write array scripts for a cluster or a shell")
    where.add_argument("--job", metavar="ID", help="run one step of the run in FOLDER, as those scripts do")
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="steps at a time (default: one per GPU, 1 on the CPU)",
    )
    parser.add_argument(
        "--look",
        action="store_true",
        help="end after the next selection, to look at its labels; the same command without it goes on",
    )
    add_resources(parser)


def run(args: argparse.Namespace) -> int:
    output = os.path.abspath(args.o)
    try:
        if args.job is not None:
            return run_single(output, args.job)
        settings = chosen_settings(args, output)
        resources = resources_of(args, settings.device)
        begun = begin(settings, output, args.dataset_id)
        if args.write is not None:
            return write_only(begun, args.write, resources, args.look)
        steps = run_all(begun, args.runner, args.processes, resources, args.look)
        return finish(begun, steps)
    except Stopped as stopped:
        return ended_by(stopped, COMMAND)


def finish(run: Run, steps: Sequence[Any]) -> int:
    """What became of the steps, then the report. Returns the exit code: 1 if a step is not complete."""
    keys = Keys(run)
    complete = {step.id for step in steps if keys.is_complete(step)}
    print(f"\n{outcome_of_steps(run.output, steps, complete)}\n", flush=True)
    if complete:
        print(write_report(run), flush=True)
    return 0 if len(complete) == len(steps) else 1


def write_report(run: Run) -> str:
    """OUT/report; imported only now, since a cluster's task needs none of it."""
    from nnunet_ssl.selftrain.report import write

    return write.write_report(run)
