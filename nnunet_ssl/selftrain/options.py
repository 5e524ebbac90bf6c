"""The options that say what a self-training consists of."""

from __future__ import annotations

import argparse
import dataclasses

from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.benchmark.manifest import DEVICES
from nnunet_ssl.planning.plans_copy import parse_assignments
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
from nnunet_ssl.selftrain.teachers import number_of_teachers

DEFAULTS = {field.name: field.default for field in dataclasses.fields(SelfTraining)}


def add_options(parser: argparse.ArgumentParser) -> None:
    """In four groups: data, rounds and teachers, selection, students."""
    _add_data(parser)
    _add_rounds(parser)
    _add_selection(parser)
    _add_students(parser)


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
