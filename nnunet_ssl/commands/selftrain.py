"""`nnunet_ssl selftrain`: train, label the images without label, keep what is certain, train again."""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from nnunet_ssl.commands.benchmark import add_resources, resources_of
from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.benchmark.cluster_scripts import KINDS
from nnunet_ssl.evaluation.benchmark.manifest import DEVICES
from nnunet_ssl.evaluation.benchmark.outcome import outcome_of_steps
from nnunet_ssl.evaluation.benchmark.run_local import Stopped
from nnunet_ssl.evaluation.benchmark.start import RUNNERS
from nnunet_ssl.planning.plans_copy import parse_assignments
from nnunet_ssl.selftrain.keys import Keys
from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.settings import (
    ALL,
    IGNORE,
    MODES,
    PREVIOUS,
    SCRATCH,
    TEACHERS,
    THRESHOLDS,
    SelfTraining,
    read_settings,
)
from nnunet_ssl.selftrain.start import begin, run_all, run_single, write_only
from nnunet_ssl.selftrain.teachers import number_of_teachers
from nnunet_ssl.selftrain.work import COMMAND

DEFAULTS = {field.name: field.default for field in dataclasses.fields(SelfTraining)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Semi-supervised self-training with stock nnU-Net: train on the labelled cases, predict the images without "
        "label (imagesUn, and cases whose label a split withholds), keep what the teachers are sure of, train on both, "
        "several rounds. Every model is a plain nnU-Net. Run again, the command repeats nothing that is finished; "
        "with -o alone it continues the run in that folder."
    )
    parser.add_argument("-o", required=True, metavar="FOLDER", help="output folder of records, selections and report")
    _add_data(parser)
    _add_rounds(parser)
    _add_selection(parser)
    _add_students(parser)
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


def _add_data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument("-d", metavar="DATASET", help="dataset id or name")
    group.add_argument("-c", metavar="CONFIGURATION", help="configuration")
    group.add_argument("-p", metavar="PLANS", help="plans of the teachers (default: nnUNetPlans)")
    group.add_argument("--split", metavar="SPLIT", help="of splits_ssl.json (default: that of the plans, or none)")
    group.add_argument("-f", type=int, metavar="FOLD", help="fold whose validation cases judge (default: 0)")
    group.add_argument("-device", choices=DEVICES, help=f"as for nnUNetv2_train (default: {DEVICES[0]})")
    group.add_argument(
        "--training",
        nargs="+",
        metavar="KEY=VALUE",
        help="as for `nnunet_ssl plans`; seed is that of the first",
    )
    group.add_argument(
        "--transductive", action="store_true", default=None, help="allow test images in the pool; tables will say so"
    )
    group.add_argument(
        "--monitor-withheld-labels",
        action="store_true",
        default=None,
        help="report the true Dice of pseudo-labels of withheld cases; it decides nothing",
    )


def _add_rounds(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("rounds and teachers")
    group.add_argument("--rounds", type=int, metavar="N", help="of pseudo-labels; 0: only the control (default: 2)")
    group.add_argument(
        "--teachers",
        choices=TEACHERS,
        help="seeds: trainings that differ in the seed (default); checkpoints: of one training, from 60 %% on; folds: "
        "of the cross-validation, whose scores are then optimistic",
    )
    group.add_argument("--n-teachers", type=int, metavar="N", help="default: 3; with folds all of them")


def _add_selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("selection")
    group.add_argument("--select", choices=[*THRESHOLDS], help="score of a case (default: agreement)")
    limits = ", ".join(f"{name} {value:g}" for name, value in THRESHOLDS.items() if value)
    group.add_argument("--threshold", type=float, metavar="X", help=f"lowest score that is kept (default: {limits})")
    group.add_argument("--keep-fraction", type=float, metavar="X", help="keep the best share instead of a threshold")
    group.add_argument("--min-cases", type=int, metavar="N", help="fewer kept cases end the run (default: 1)")
    group.add_argument(
        "--keep-empty", action="store_true", default=None, help="keep cases in which no teacher finds anything"
    )
    group.add_argument("--voxels", choices=(ALL, IGNORE), help="ignore: uncertain voxels get the ignore label")
    group.add_argument(
        "--voxel-confidence", type=float, metavar="X", help="probability below which they are (default: 0.8); 0: only "
        "where teachers differ, without probabilities",
    )  # fmt: skip


def _add_students(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("students")
    group.add_argument(
        "--mode",
        choices=MODES,
        help="joint: on both (default); pretrain: on pseudo-labels, then on labels; joint-finetune: on both, then on "
        "labels",
    )
    group.add_argument(
        "--labeled-share", type=float, metavar="X", help="lowest share of labelled cases in training (default: 0.5)"
    )
    group.add_argument("--from", choices=(SCRATCH, PREVIOUS), dest="start", help="first weights (default: scratch)")
    group.add_argument("--student-plans", metavar="PLANS", help="plans of the students (default: those of -p)")
    group.add_argument(
        "--dataset-id", type=int, metavar="ID", help="of the first student's dataset (default: the first free from 901)"
    )


def run(args: argparse.Namespace) -> int:
    output = os.path.abspath(args.o)
    try:
        if args.job is not None:
            return run_single(output, args.job)
        settings = chosen_settings(args, output)
        resources = dataclasses.replace(resources_of(args), gpus=1 if settings.device == "cuda" else 0)
        begun = begin(settings, output, args.dataset_id)
        if args.write is not None:
            return write_only(begun, args.write, resources, args.look)
        steps = run_all(begun, args.runner, args.processes, resources, args.look)
        return finish(begun, steps)
    except Stopped as stopped:
        if stopped.signal_number == signal.SIGINT:
            raise KeyboardInterrupt from None  # explained where all commands explain it
        name = signal.Signals(stopped.signal_number).name
        print(f"nnunet_ssl {COMMAND}: ended by {name}; start it again to continue", file=sys.stderr)
        return 128 + stopped.signal_number


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


def chosen_settings(args: argparse.Namespace, output: str) -> SelfTraining:
    """From the options, or from an earlier start in the output folder.

    Raises:
        SemiSupervisedError: an incomplete choice, or settings that cannot be read.
    """
    given = {name: value for name, value in vars(args).items() if value is not None and name in _NAMES}
    values = {_NAMES[name]: value for name, value in given.items()}
    if not given or set(given) == {"device"}:
        return dataclasses.replace(read_settings(output), **values)
    if missing := [f"-{name}" for name in ("d", "c") if name not in given]:
        raise complain(
            f"Missing: {', '.join(missing)}.", remedy="Give the whole choice; with -o alone the run there continues."
        )
    if "threshold" in given and "keep_fraction" in given:
        raise complain("--threshold and --keep-fraction are two ways to choose cases.", remedy="Give one of them.")
    values["training"] = parse_assignments(args.training or [])
    values.setdefault("student_plans", values.get("plans", DEFAULTS["plans"]))
    values.setdefault("threshold", THRESHOLDS[values.get("select", DEFAULTS["select"])])
    if "n_teachers" not in values:
        values["n_teachers"] = number_of_teachers(values)
    return SelfTraining(**values)


# names of options -> of settings
_NAMES = {
    **{"d": "dataset", "c": "configuration", "p": "plans", "f": "fold", "device": "device"},
    **{
        name: name
        for name in DEFAULTS
        if name not in ("dataset", "configuration", "plans", "fold", "device", "datasets")
    },
}
