"""`nnunet_ssl plans`: plans that carry a split and settings for semi-supervised training."""

from __future__ import annotations

import argparse
import os

from nnunet_ssl.data.folders import dataset_id
from nnunet_ssl.planning.plans_copy import PlansCopy, parse_settings_of_all, write_plans_copy
from nnunet_ssl.trainers import CONTROL
from nnunet_ssl.training.settings import BLOCK, TrainingSettings, describe

EXAMPLE = "nnUNetTrainerMeanTeacher"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write a copy of a plans file with the settings of semi-supervised training: the split, the length\n"
        "of the training and the hyper-parameters of the trainers. It has a name of its own, so results have\n"
        "a folder of their own, and uses the same preprocessed data."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "settings for --training:\n" + "\n".join(
        f"  {name:<30}{meaning}" for name, _, meaning, _ in describe(TrainingSettings)
    )
    parser.add_argument("-d", required=True, metavar="DATASET", help="dataset id or name")
    parser.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans to copy (default: nnUNetPlans)")
    parser.add_argument("--split", help="name of a split made by `nnunet_ssl splits`; without it every label is used")
    parser.add_argument("--name", help="name of the copy (default: PLANS_SPLIT)")
    parser.add_argument(
        "--training", nargs="+", default=[], metavar="KEY=VALUE", help="for every trainer alike, see below"
    )
    parser.add_argument(
        "--hyperparameters", nargs="+", default=[], metavar="TRAINER:KEY=VALUE", help="of single trainers"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a copy of the same name")


def run(args: argparse.Namespace) -> int:
    training, hyperparameters = parse_settings_of_all(args.training, args.hyperparameters)
    result = write_plans_copy(
        args.d,
        plans_identifier=args.p,
        name=args.name,
        split=args.split,
        training=training,
        hyperparameters=hyperparameters,
        overwrite=args.overwrite,
    )
    print("\n".join(report(result, args.p)))
    return 0


def report(result: PlansCopy, source: str) -> list[str]:
    """What was written, and the training commands that use it."""
    dataset = dataset_id(os.path.dirname(result.path))
    block, configurations = result.plans[BLOCK], result.plans["configurations"]
    lines = [f"Plans for semi-supervised training: {result.path}{' (unchanged)' if result.unchanged else ''}"]
    if result.merged:
        lines.append(f"{source} carries settings already; they hold where nothing else was given.")
    lines.append(f"split: {block.get('split') or 'none, every training label is used'}")
    lines += [f"training: {key} = {value}" for key, value in block.get("training", {}).items()]
    for trainer, values in block.get("hyperparameters", {}).items():
        lines += [f"{trainer}: {key} = {value}" for key, value in values.items()]
    configuration = "3d_fullres" if "3d_fullres" in configurations else next(iter(configurations))
    trainers = [*block.get("hyperparameters", {EXAMPLE: {}})]
    lines += ["Next, the same fold with a semi-supervised trainer and with the control on the labelled cases alone:"]
    lines += ["  export nnUNet_extTrainer=$(nnunet_ssl path)"]
    for trainer in [*(t for t in trainers if t != CONTROL), CONTROL]:
        lines.append(f"  nnUNetv2_train {dataset} {configuration} 0 -tr {trainer} -p {result.plans['plans_name']}")
    return lines
