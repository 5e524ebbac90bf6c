"""`nnunet_ssl headroom`: can images without labels help on this dataset?"""

from __future__ import annotations

import argparse
import os
import sys

from nnunet_ssl.commands.benchmark import add_resources, resources_of
from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.benchmark.jobs import COMPLETE
from nnunet_ssl.evaluation.benchmark.manifest import DEVICES, Manifest
from nnunet_ssl.evaluation.benchmark.outcome import outcome, states
from nnunet_ssl.evaluation.benchmark.run_local import Stopped, ended_by
from nnunet_ssl.evaluation.benchmark.start import RUNNERS, run_all
from nnunet_ssl.headroom.plan import FRACTIONS, MOST_FOLDS, TRAINING, Question, count_images, planned, stored
from nnunet_ssl.planning.plans_copy import parse_assignments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Will semi-supervised training help? Trains the control, nnU-Net on labelled cases alone, on several fractions "
        "of the labels, with a small network and for a short time, and draws the learning curve. Images without labels "
        "can hardly bring more than their labels would. Run again, the command repeats nothing that is finished; with "
        "-o alone it continues what was begun in that folder."
    )
    parser.add_argument("-o", metavar="FOLDER", help="output folder (default: headroom_DATASET_CONFIGURATION)")
    what = parser.add_argument_group("what to train")
    what.add_argument("-d", metavar="DATASET", help="dataset id or name")
    what.add_argument("-c", metavar="CONFIGURATION", help="configuration")
    what.add_argument(
        "-p",
        default=Question.plans,
        metavar="PLANS",
        help="plans, of which a copy with a small network is made; a copy that `nnunet_ssl plans --patch ...` made is "
        "taken as it is (default: %(default)s)",
    )
    what.add_argument("--fractions", nargs="+", type=float, default=list(FRACTIONS), help="default: 0.25 0.5 1")
    what.add_argument(
        "-f", nargs="+", type=int, metavar="FOLD", help=f"folds (default: the first {MOST_FOLDS}, or all there are)"
    )
    what.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED", help="default: 0")
    what.add_argument(
        "--folds",
        nargs="?",
        type=int,
        const=0,
        metavar="N",
        help="for fewer than 5 labelled cases or subjects: write a splits_final.json, as `nnunet_ssl splits --folds`",
    )
    what.add_argument("--groups", metavar="FILE", help="subject of every labelled case, as for `nnunet_ssl splits`")
    what.add_argument(
        "--training",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help=f"as for `nnunet_ssl plans` (default: {' '.join(f'{key}={value}' for key, value in TRAINING.items())})",
    )
    what.add_argument("-device", choices=DEVICES, default=DEVICES[0], help="as for nnUNetv2_train (default: cuda)")
    where = parser.add_argument_group("where it runs")
    where.add_argument("--run", choices=RUNNERS, dest="runner", default=RUNNERS[0], help="default: local")
    where.add_argument("--processes", type=int, metavar="N", help="jobs at a time (default: one per GPU, 1 on the CPU)")
    where.add_argument("--no-wait", action="store_true", help="with --run slurm: do not wait for the jobs")
    add_resources(parser)


def run(args: argparse.Namespace) -> int:
    output = os.path.abspath(args.o or f"headroom_{args.d}_{args.c}")
    try:
        manifest = chosen_manifest(args, output)
        resources = resources_of(args, manifest.device)
        jobs = run_all(manifest, output, args.runner, args.processes, resources, not args.no_wait)
    except Stopped as stopped:
        return ended_by(stopped, "headroom")
    if jobs is None:
        return 0
    print(f"\n{outcome(output, jobs)}\n", flush=True)
    if set(states(output, jobs).values()) != {COMPLETE}:
        print("The curve is drawn once all jobs are complete; start the command again to continue.", file=sys.stderr)
        return 1
    from nnunet_ssl.headroom.page import write_page

    print(write_page(output, count_images(manifest.experiments[0])), flush=True)
    return 0


def chosen_manifest(args: argparse.Namespace, output: str) -> Manifest:
    """From the options, whose plans and splits are written, or from an earlier start in the output folder.

    Raises:
        SemiSupervisedError: half of these, or what cannot be planned.
    """
    if args.o is not None and args.d is None and args.c is None:
        return stored(output)
    if args.d is None or args.c is None:
        raise complain("A dataset and a configuration are needed.", remedy="Give both -d and -c.")
    return planned(
        Question(
            dataset=args.d,
            configuration=args.c,
            plans=args.p,
            fractions=args.fractions,
            folds=args.f,
            seeds=args.seeds,
            number_of_folds=args.folds,
            groups=args.groups,
            training=parse_assignments(args.training),
            device=args.device,
        )
    )
