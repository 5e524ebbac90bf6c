"""`nnunet_ssl splits`: choose the labelled cases of semi-supervised runs, per fold."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from nnunet_ssl.data.dataset_json import read_dataset_json
from nnunet_ssl.data.folders import dataset_id, load_plans
from nnunet_ssl.data.recipes import DEFAULT_PLANS
from nnunet_ssl.data.shown_classes import shown_in, unshown_lines
from nnunet_ssl.data.split_making import Written, create_splits
from nnunet_ssl.errors import SemiSupervisedError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write splits_ssl.json for semi-supervised training: in every fold, which training cases keep their label and "
        "which are used as unlabelled images. Smaller splits are contained in larger ones of the same seed. Splits "
        "already in the file are kept. nnU-Net's splits_final.json is never changed; --folds writes one where none is."
    )
    parser.add_argument("-d", required=True, metavar="DATASET", help="dataset id or name")
    parser.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans of the preprocessed labelled cases")
    parser.add_argument(
        "--fractions", nargs="+", type=float, default=[], help="labelled share of the training cases; 0.1 is named l10"
    )
    parser.add_argument("--counts", nargs="+", type=int, default=[], help="number of labelled cases; 6 is named n6")
    parser.add_argument(
        "--labeled-from",
        metavar="FILE",
        help='labelled cases given as JSON, a list or {"name": list}, for published protocols; '
        "each fold labels those that are among its training cases",
    )
    parser.add_argument("--names", nargs="+", default=[], help="names of all these splits, in that order")
    parser.add_argument("--seed", type=int, default=0, help="of the order in which cases become labelled (default: 0)")
    parser.add_argument(
        "--groups",
        metavar="FILE",
        help='subject of every labelled case: JSON {"case": "subject"} or CSV case,subject. No subject is divided '
        "between labelled, unlabelled and validation cases; whole subjects are added until there are enough cases",
    )
    parser.add_argument(
        "--folds",
        nargs="?",
        type=int,
        const=0,
        metavar="N",
        help="for fewer than 5 labelled cases or subjects, or to keep subjects together: write a splits_final.json, "
        "which nnU-Net uses too, with N folds (default: as many as there can be, at most 5); alone or with splits",
    )
    parser.add_argument(
        "--ignore-existing-folds",
        action="store_true",
        help="make folds, for splits_ssl.json alone, although splits_final.json exists",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace splits of the same name")


def run(args: argparse.Namespace) -> int:
    written = create_splits(
        args.d,
        plans_identifier=args.p,
        fractions=args.fractions,
        counts=args.counts,
        labeled_from=args.labeled_from,
        names=args.names,
        seed=args.seed,
        groups_file=args.groups,
        number_of_folds=args.folds,
        ignore_existing_folds=args.ignore_existing_folds,
        overwrite=args.overwrite,
    )
    print("\n".join(report(written, args.p, class_notes(written, args.p))))
    return 0


def class_notes(written: Written, plans_identifier: str) -> list[str]:
    """Classes that the labelled cases of a fold do not show, with the withheld cases that have them."""
    base = os.path.dirname(written.path)
    try:
        dataset_json = read_dataset_json(os.path.join(base, "dataset.json"))
        shown = shown_in(base, load_plans(base, plans_identifier), dataset_json)
    except SemiSupervisedError as error:
        return [f"NOTE: it was not checked whether the labelled cases show every class: {error}"]
    lines = [f"no labelled case of the dataset shows {', '.join(shown.nowhere)}"] if shown.nowhere else []
    lines += [f"{name}, {line}" for name, split in written.new.items() for line in unshown_lines(split.folds, shown)]
    lines += unshown_lines(written.folds, shown) if not written.new else []
    return [f"NOTE: {line}" for line in lines]


def report(written: Written, plans: str = DEFAULT_PLANS, notes: Sequence[str] = ()) -> list[str]:
    """What stands in the file now, notes, and what to do next."""
    dataset = dataset_id(os.path.dirname(written.path))
    lines = [f"Semi-supervised splits in {written.path}"] if written.new else []
    lines.append(f"Folds from: {written.folds_from}")
    if not written.new:
        counts = [f"{len(fold.train)} training, {len(fold.val)} validation" for fold in written.folds]
        lines += [f"  fold {index}: {size}" for index, size in enumerate(counts)]
    for name, split in written.new.items():
        lines.append(f"{name}{' (unchanged)' if name in written.unchanged else ''}")
        for index, fold in enumerate(split.folds):
            sizes = f"{len(fold.labeled)} labelled, {len(fold.unlabeled)} unlabelled, {len(fold.val)} validation"
            lines.append(f"  fold {index}: {sizes}")
    if written.other_folds:
        names = ", ".join(written.other_folds)
        lines.append(f"NOTE: {names} in the same file validate on other cases; do not compare with them.")
    if written.own_folds:
        lines.append(
            "NOTE: training runs whose plans carry no split use nnU-Net's own folds (splits_final.json), not these; "
            "do not compare the two."
        )
    lines += [f"NOTE: {line}" for line in written.dropped]
    if written.dropped:
        lines.append(
            "For a published list of labelled and validation cases, write splits_final.json with the published folds "
            "before this command."
        )
    lines += notes
    if not written.new:
        return [*lines, "Next, one training per fold:", f"  nnUNetv2_train {dataset} CONFIGURATION 0 -tr TRAINER"]
    of_plans = "" if plans == DEFAULT_PLANS else f" -p {plans}"
    command = f"nnunet_ssl plans -d {dataset}{of_plans} --split {next(iter(written.new))}"
    return [*lines, "Next, the settings for training:", f"  {command}"]
