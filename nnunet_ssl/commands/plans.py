"""`nnunet_ssl plans`: plans that carry a split and settings for semi-supervised training."""

from __future__ import annotations

import argparse
import os
from typing import Any

from nnunet_ssl.data.folders import dataset_id
from nnunet_ssl.data.published_networks import NETWORKS
from nnunet_ssl.data.unlabeled_store import unlabeled_identifiers
from nnunet_ssl.errors import complain
from nnunet_ssl.planning.fit import Estimate, Fit
from nnunet_ssl.planning.plans_copy import PlansCopy, parse_assignments, parse_settings_of_all, write_plans_copy
from nnunet_ssl.planning.small_network import SmallNetwork
from nnunet_ssl.setting_descriptions import describe
from nnunet_ssl.trainers import CONTROL, FIRST_CHOICE
from nnunet_ssl.training.settings import BLOCK, CHANGED, PredictionSettings, TrainingSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write a copy of a plans file with the settings of semi-supervised training: the split, the length\n"
        "of the training and the hyper-parameters of the trainers. It has a name of its own, so results have\n"
        "a folder of their own, and uses the same preprocessed data."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "settings for --training:\n" + "\n".join(
        f"  {setting.name:<30}{setting.doc}" for setting in describe(TrainingSettings)
    )
    parser.epilog += "\nsettings for --prediction:\n" + "\n".join(
        f"  {setting.name:<30}{setting.doc}" for setting in describe(PredictionSettings)
    )
    parser.add_argument("-d", required=True, metavar="DATASET", help="dataset id or name")
    parser.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans to copy (default: nnUNetPlans)")
    parser.add_argument("--split", help="name of a split made by `nnunet_ssl splits`; without it every label is used")
    parser.add_argument("--name", help="name of the copy (default: PLANS_SPLIT)")
    for option, form, meaning in (
        ("--training", "KEY=VALUE", "for every trainer alike, see below"),
        ("--hyperparameters", "TRAINER:KEY=VALUE", "of single trainers"),
        (
            "--prediction",
            "KEY=VALUE",
            "how windows become a prediction in the validation and in `nnunet_ssl predict-as-paper`, see below",
        ),
    ):
        parser.add_argument(option, nargs="+", action="extend", default=[], metavar=form, help=meaning)
    parser.add_argument("--overwrite", action="store_true", help="replace a copy of the same name")
    _add_network(parser)
    _add_memory(parser)


def _add_network(parser: argparse.ArgumentParser) -> None:
    network = parser.add_argument_group(
        "another network: small, for a CPU, or that of a publication",
        "The copy has one configuration, whose network fits the patch by nnU-Net's own rules, or with --network is a\n"
        "publication's. With --spacing it has preprocessed data of its own.",
    )
    network.add_argument(
        "-c", metavar="CONFIGURATION", help="the configuration, with at least one of the following or with --fit"
    )
    network.add_argument(
        "--features",
        nargs="+",
        type=int,
        metavar="N",
        help="channels of each stage (default: 8 16 32 64 64 ..., or those of --network)",
    )
    network.add_argument(
        "--patch", nargs="+", type=int, metavar="N", help="voxels per axis (default: of the plans, at most an image)"
    )
    network.add_argument("--batch", type=int, metavar="N", help="patches per step (default: of the plans)")
    network.add_argument(
        "--spacing",
        nargs="+",
        type=float,
        metavar="MM",
        help="per axis in the order of the plans, or one for all axes (default: of the plans)",
    )
    network.add_argument(
        "--network",
        choices=tuple(NETWORKS),
        help="of a publication: V-Net of UA-MT (vnet16) or of DHC and SKCDF (vnet32), U-Net of SSL4MIS (unet16)",
    )
    network.add_argument(
        "--dropout",
        type=float,
        metavar="RATE",
        help="of whole channels in that network: in a V-Net at the bottleneck and before the head (default: none)",
    )


def _add_memory(parser: argparse.ArgumentParser) -> None:
    memory = parser.add_argument_group(
        "memory of a GPU",
        "The copy has a batch, and where that is not enough a patch, with which a training step of the trainers fits,\n"
        "by nnU-Net's own rules. Beside the step's tensors CUDA and cuDNN take about 1 GiB.",
    )
    memory.add_argument("--fit", type=float, metavar="GIB", help="what the tensors of a training step may take")
    memory.add_argument(
        "-tr", nargs="+", metavar="TRAINER", help=f"each of them has to fit (default: {FIRST_CHOICE} and the control)"
    )


def run(args: argparse.Namespace) -> int:
    training, hyperparameters = parse_settings_of_all(args.training, args.hyperparameters)
    result = write_plans_copy(
        args.d,
        plans_identifier=args.p,
        name=args.name,
        split=args.split,
        training=training,
        hyperparameters=hyperparameters,
        prediction=parse_assignments(args.prediction),
        network=_network(args),
        fit=_fit(args),
        overwrite=args.overwrite,
    )
    print("\n".join(report(result, args.p)))
    return 0


def _network(args: argparse.Namespace) -> SmallNetwork | None:
    changes = (args.features, args.patch, args.batch, args.spacing, args.network, args.dropout)
    if all(value is None for value in changes):
        if args.c is not None and args.fit is None:
            raise complain(
                "-c chooses the configuration of another network, of which nothing was given.",
                remedy="Give --features, --patch, --batch, --spacing, --network or --fit, or leave out -c to copy "
                "every configuration.",
            )
        return None
    if args.c is None:
        raise complain("Another network needs its configuration.", remedy="Give -c, such as -c 2d or -c 3d_fullres.")
    return SmallNetwork(args.c, *changes)


def _fit(args: argparse.Namespace) -> Fit | None:
    if args.fit is None:
        if args.tr:
            raise complain(
                "-tr names the trainers whose memory is planned, of which nothing was given.",
                remedy="Give --fit GIB, or leave out -tr.",
            )
        return None
    if not args.fit > 0:
        raise complain(f"--fit: GiB above 0, got {args.fit:g}.", remedy="Give the memory of the GPU less 1 GiB.")
    return Fit(args.fit, args.tr or [FIRST_CHOICE, CONTROL], [args.c] if args.c else [])


def report(result: PlansCopy, source: str) -> list[str]:
    """What was written, and the commands that use it: for data of its own, and for training."""
    dataset = dataset_id(os.path.dirname(result.path))
    block, configurations = result.plans[BLOCK], result.plans["configurations"]
    name, small = result.plans["plans_name"], block.get(CHANGED, {})
    lines = [f"Plans for semi-supervised training: {result.path}{' (unchanged)' if result.unchanged else ''}"]
    if result.merged:
        lines.append(f"{source} carries settings already; they hold where nothing else was given.")
    lines.append(f"split: {block.get('split') or 'none, every training label is used'}")
    lines += [f"training: {key} = {value}" for key, value in block.get("training", {}).items()]
    lines += [f"prediction: {key} = {value}" for key, value in block.get("prediction", {}).items()]
    for trainer, values in block.get("hyperparameters", {}).items():
        lines += [f"{trainer}: {key} = {value}" for key, value in values.items()]
    lines += [memory_line(estimate) for estimate in result.estimates]
    usable = [*dict.fromkeys(estimate.configuration for estimate in result.estimates)] or [*configurations]
    configuration = "3d_fullres" if "3d_fullres" in usable else usable[0]
    if result.estimates:
        lines += [_small(each, configurations[each])[0] for each in usable]
    elif small:
        folder = os.path.join(os.path.dirname(result.path), configurations[configuration]["data_identifier"])
        lines += _small(configuration, configurations[configuration])
        lines += _preprocessing(folder, dataset, name, configuration)
    wanted = [*block.get("hyperparameters", {}), *(estimate.trainer for estimate in result.estimates)]
    trainers = [*dict.fromkeys(trainer for trainer in wanted if trainer != CONTROL)] or [FIRST_CHOICE]
    lines += ["Next, the same fold with a semi-supervised trainer and with the control on the labelled cases alone:"]
    lines += ["  export nnUNet_extTrainer=$(nnunet_ssl path)"]
    device = " -device cpu" if small and not result.estimates else ""
    for trainer in [*trainers, CONTROL]:
        lines.append(f"  nnUNetv2_train {dataset} {configuration} 0 -tr {trainer} -p {name}{device}")
    return lines


def memory_line(estimate: Estimate) -> str:
    """What a training step needs, in a line."""
    before, after = (f"{gib:.1f} GiB" for gib in (estimate.before, estimate.after))
    changed = f", with the plans as they were {before}" if before != after else ""
    return f"{estimate.configuration}: a training step of {estimate.trainer} needs {after}{changed}"


def _small(name: str, configuration: dict[str, Any]) -> list[str]:
    """The configuration of a small network in a line."""
    sizes = {key: " x ".join(f"{value:g}" for value in configuration[key]) for key in ("patch_size", "spacing")}
    features = " ".join(map(str, configuration["architecture"]["arch_kwargs"]["features_per_stage"]))
    patch = f"patch {sizes['patch_size']} at {sizes['spacing']} mm, batch {configuration['batch_size']}"
    return [f"{name}: {patch}, stages with {features} features"]


def _preprocessing(folder: str, dataset: int, plans: str, configuration: str) -> list[str]:
    """The commands that make the data of another spacing, where they are not there yet."""
    if unlabeled_identifiers(folder):
        return []
    return [
        "First preprocess the labelled cases for these plans, and the images in imagesUn if there are any:",
        f"  nnUNetv2_preprocess -d {dataset} -plans_name {plans} -c {configuration}",
        f"  nnunet_ssl preprocess -d {dataset} -p {plans} -c {configuration}",
    ]
