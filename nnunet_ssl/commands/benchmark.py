"""`nnunet_ssl benchmark`: semi-supervised trainers side by side, from splits to a table."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import Any

from nnunet_ssl.errors import SemiSupervisedError, complain
from nnunet_ssl.evaluation.benchmark.cluster_scripts import KINDS, Resources
from nnunet_ssl.evaluation.benchmark.jobs import COMPLETE, Job
from nnunet_ssl.evaluation.benchmark.manifest import DEVICES, EXAMPLE, Manifest, parse_manifest, read_manifest
from nnunet_ssl.evaluation.benchmark.outcome import outcome, states
from nnunet_ssl.evaluation.benchmark.run_local import Stopped, ended_by
from nnunet_ssl.evaluation.benchmark.start import RUNNERS, run_all, run_single, stored_manifest, write_only
from nnunet_ssl.planning.plans_copy import parse_settings_of_all

OF_A_MANIFEST = ("d", "c", "tr", "splits")  # needed where no file says it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Train semi-supervised trainers on the same splits, folds and seeds with the stock commands, evaluate them\n"
        "and write one table. nnUNetTrainerSupervised, the control, is always among them. Everything is checked\n"
        "before any work. Run again, the command skips finished jobs and continues those that were cut off; with\n"
        "-o alone it continues the benchmark in that folder."
    )
    parser.epilog = "a manifest file (YAML or JSON), instead of -d and so on:\n" + EXAMPLE
    _add_selection(parser)
    parser.add_argument("-o", required=True, metavar="FOLDER", help="output folder of records, evaluations and report")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--run",
        choices=RUNNERS,
        dest="runner",
        default=RUNNERS[0],
        help="where the jobs run (default: local, one job per GPU)",
    )
    where.add_argument("--write", choices=KINDS, help="only write an array script for a cluster or a shell")
    where.add_argument("--job", metavar="ID", help="run one job of the benchmark in FOLDER, as those scripts do")
    parser.add_argument(
        "--processes", type=int, metavar="N", help="jobs at a time (default: one per GPU, 1 on the CPU, or the cluster)"
    )
    parser.add_argument("--no-wait", action="store_true", help="with --run slurm: do not wait for the jobs")
    add_resources(parser)


def _add_selection(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what to compare")
    what.add_argument("--manifest", metavar="FILE", help="a file with all of this, see below")
    what.add_argument("-d", metavar="DATASET", help="dataset id or name")
    what.add_argument("-c", nargs="+", metavar="CONFIGURATION", help="configurations")
    what.add_argument("-p", metavar="PLANS", help="plans to start from (default: nnUNetPlans)")
    what.add_argument("-tr", nargs="+", metavar="TRAINER", help="trainers")
    what.add_argument("--splits", nargs="+", metavar="SPLIT", help="names of splits made by `nnunet_ssl splits`")
    what.add_argument("-f", nargs="+", type=int, metavar="FOLD", help="folds of the splits (default: 0)")
    what.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="of the training runs (default: 0)")
    what.add_argument("--training", nargs="+", metavar="KEY=VALUE", help="as for `nnunet_ssl plans`")
    what.add_argument("--hyperparameters", nargs="+", metavar="TRAINER:KEY=VALUE", help="as for `nnunet_ssl plans`")
    what.add_argument("--test-images", metavar="FOLDER", help="images of a test set to predict and evaluate as well")
    what.add_argument("--test-labels", metavar="FOLDER", help="their reference labels")
    what.add_argument(
        "--protocol", metavar="NAME", help="published protocol that splits and folds follow, such as la, for the report"
    )
    what.add_argument("-device", choices=DEVICES, help=f"as for nnUNetv2_train (default: {DEVICES[0]})")


def add_resources(parser: argparse.ArgumentParser) -> None:
    ask = parser.add_argument_group("what a job asks the cluster for")
    ask.add_argument("--time", default=Resources.time, help=f"time limit (default: {Resources.time}); jobs continue")
    ask.add_argument("--memory", type=int, default=Resources.memory, metavar="GB", help="default: %(default)s")
    ask.add_argument("--cpus", type=int, default=Resources.cpus, metavar="N", help="cores (default: %(default)s)")
    ask.add_argument("--partition", metavar="NAME", help="partition or queue")
    ask.add_argument(
        "--directive",
        action="append",
        default=[],
        metavar="TEXT",
        help="further line for the scheduler, for example --directive=--account=abc; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    output = os.path.abspath(args.o)
    try:
        if args.job is not None:
            return run_single(output, args.job)
        manifest = chosen_manifest(args, output)
        resources = resources_of(args, manifest.device)
        if args.write is not None:
            return write_only(manifest, output, args.write, resources)
        jobs = run_all(manifest, output, args.runner, args.processes, resources, not args.no_wait)
        return 0 if jobs is None else finish(output, jobs)
    except Stopped as stopped:
        return ended_by(stopped, "benchmark")


def finish(output: str, jobs: Sequence[Job]) -> int:
    """The table of the jobs, then the report on the results. Returns the exit code: 1 if a job is not complete."""
    print(f"\n{outcome(output, jobs)}\n", flush=True)
    found = states(output, jobs)
    if COMPLETE in found.values():
        try:
            print(write_report(output), flush=True)
        except SemiSupervisedError as error:
            print(f"No report was written: {error}", file=sys.stderr)
            return 1
    return 0 if set(found.values()) == {COMPLETE} else 1


def write_report(output: str) -> str:
    """OUT/report; imported only now, since a cluster's job needs none of it."""
    from nnunet_ssl.evaluation.report import write

    return write.write_report(output)


def chosen_manifest(args: argparse.Namespace, output: str) -> Manifest:
    """From the file, from the options, or from an earlier start in the output folder.

    Raises:
        SemiSupervisedError: more than one of these, or an incomplete choice.
    """
    options = {name: getattr(args, name) for name in (*OF_A_MANIFEST, "p", "f", "seeds", "training", "hyperparameters")}
    options |= {"test_images": args.test_images, "test_labels": args.test_labels, "protocol": args.protocol}
    given = {name: value for name, value in options.items() if value is not None}
    if args.manifest is not None:
        if given or args.device is not None:
            raise complain("--manifest takes the place of the other options.", remedy="Give one or the other.")
        return read_manifest(args.manifest)
    if not given:
        stored = stored_manifest(output)
        return stored if args.device is None else dataclasses.replace(stored, device=args.device)
    missing = [f"-{name}" if len(name) < 3 else f"--{name}" for name in OF_A_MANIFEST if name not in given]
    if missing:
        raise complain(f"Missing: {', '.join(missing)}.", remedy="Or give --manifest FILE; with -o alone it continues.")
    training, hyperparameters = parse_settings_of_all(args.training or [], args.hyperparameters or [])
    names = {"d": "dataset", "c": "configurations", "p": "plans", "tr": "trainers", "f": "folds"}
    entry: dict[str, Any] = {names.get(name, name): value for name, value in given.items()}
    entry |= {"training": training, "hyperparameters": hyperparameters}
    content = {"datasets": [entry], "device": args.device or DEVICES[0]}
    return parse_manifest(content, "The command line", os.getcwd())


def resources_of(args: argparse.Namespace, device: str) -> Resources:
    """What a job asks for: by the options of add_resources, and a GPU where nnU-Net's -device is one."""
    numbers = {"--processes": args.processes, "--memory": args.memory, "--cpus": args.cpus}
    problems = [f"{name} {value}: at least 1" for name, value in numbers.items() if value is not None and value < 1]
    if problems:
        raise complain("These numbers cannot be used:", problems)
    gpus, directives = 1 if device == "cuda" else 0, tuple(args.directive)
    resources = Resources(args.time, args.memory, args.cpus, gpus, args.partition, directives, at_once=args.processes)
    _ = resources.minutes  # of the form that clusters understand
    return resources
