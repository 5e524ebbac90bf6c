"""Which configurations of a plans file to preprocess for, grouped by the preprocessed data they share."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ssl.data.folders import dataset_id, load_plans, planning_command
from nnunet_ssl.data.outdated import refuse_outdated
from nnunet_ssl.data.preprocess_case import INTENSITIES, Recipe, settings_hash
from nnunet_ssl.data.unlabeled_store import unlabeled_folder, unlabeled_identifiers
from nnunet_ssl.errors import complain

DEFAULT_PLANS = "nnUNetPlans"
NEEDED_KEYS = ("image_reader_writer", "transpose_forward")


def find_recipes(
    base: str, plans_identifier: str, configurations: Sequence[str] | None, dataset_json: dict[str, Any]
) -> list[Recipe]:
    """One recipe per data identifier, in the order of the configurations.

    Args:
        base: nnUNet_preprocessed/DatasetXXX_Name.
        plans_identifier: name of the plans file.
        configurations: None: all whose labelled cases are preprocessed; the others are named on stdout.
        dataset_json: of the labelled cases.

    Raises:
        SemiSupervisedError: plans, configurations or labelled data are missing, or were overtaken by new planning; a
            reader or preprocessor that this nnU-Net does not have; configurations that share data but not the way they
            are made.
    """
    if plans_identifier == DEFAULT_PLANS and not os.path.isfile(os.path.join(base, f"{DEFAULT_PLANS}.json")):
        raise _not_preprocessed(base, plans_identifier, configurations or ["CONFIGURATION"])
    plans = load_plans(base, plans_identifier)
    manager = PlansManager(plans)
    identifiers = _data_identifiers(manager, configurations, os.path.join(base, f"{plans_identifier}.json"))
    absent = [name for name, found in identifiers.items() if not unlabeled_identifiers(os.path.join(base, found))]
    groups: dict[str, list[str]] = {}
    for name, identifier in identifiers.items():
        if name not in absent:
            groups.setdefault(identifier, []).append(name)
    check_complete(plans, os.path.join(base, f"{plans_identifier}.json"))
    _check_agreement(plans, groups, dataset_json)
    refuse_outdated(base, plans, [n for n in identifiers if n not in absent] or identifiers, dataset_json)
    if absent and (configurations is not None or len(absent) == len(identifiers)):
        raise _not_preprocessed(base, plans_identifier, absent if configurations is not None else ["CONFIGURATION"])
    if absent:
        print(f"Not preprocessed by nnU-Net, therefore skipped: {', '.join(absent)}", flush=True)
    _check_classes(manager, groups, base)
    return [
        Recipe(plans, tuple(names), identifier, dataset_json, unlabeled_folder(os.path.join(base, identifier)))
        for identifier, names in groups.items()
    ]


def _data_identifiers(manager: PlansManager, configurations: Sequence[str] | None, path: str) -> dict[str, str]:
    """Configuration -> data identifier, inheritance resolved."""
    known = {
        name: resolved["data_identifier"]
        for name in manager.available_configurations
        if "data_identifier" in (resolved := manager.get_configuration(name).configuration)
    }
    chosen = list(dict.fromkeys(configurations)) if configurations else list(known)
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        raise complain(
            f"{path} has no configuration {', '.join(unknown)} to preprocess for.",
            remedy=f"Choose with -c from: {', '.join(known)}" if known else "Name other plans with -p.",
        )
    return {name: known[name] for name in chosen}


def _not_preprocessed(base: str, plans_identifier: str, configurations: Sequence[str]) -> Exception:
    names = " ".join(configurations)
    if not os.path.isfile(os.path.join(base, f"{plans_identifier}.json")):  # else planning would change plans in use
        command = f"{planning_command(base, configurations)}   (or name other plans with -p)"
    else:
        command = f"nnUNetv2_preprocess -d {dataset_id(base)} -plans_name {plans_identifier} -c {names}"
    return complain(
        f"The labelled cases of {os.path.basename(base)} are not preprocessed with {plans_identifier}"
        f"{'' if names == 'CONFIGURATION' else f' for {names}'}.",
        remedy=f"Run: {command}",
    )


def check_complete(plans: Mapping[str, Any], path: str) -> None:
    """The plans must say how images are read and preprocessed.

    Raises:
        SemiSupervisedError: with every key that is missing.
    """
    missing = [key for key in NEEDED_KEYS if key not in plans]
    if not any(key in plans for key in INTENSITIES):
        missing.append(INTENSITIES[0])
    if missing:
        command = planning_command(os.path.dirname(path))
        raise complain(
            f"{path} lacks {', '.join(missing)}.", remedy=f"Restore the plans file, or plan again: {command}"
        )


def _check_classes(manager: PlansManager, groups: Mapping[str, Sequence[str]], base: str) -> None:
    problems = []
    for names in groups.values():
        configuration = manager.get_configuration(names[0])
        if configuration.preprocessor_class is None:
            problems.append(f"preprocessor {configuration.preprocessor_name} of {', '.join(names)}")
    try:
        recursive_find_reader_writer_by_name(manager.plans["image_reader_writer"])
    except RuntimeError:
        problems.append(f"image reader {manager.plans['image_reader_writer']}")
    if problems:
        raise complain(
            "The plans name classes that the installed nnU-Net does not have:",
            problems,
            f"Install the nnU-Net that made these plans, or plan again: {planning_command(base)}",
        )


def _check_agreement(
    plans: Mapping[str, Any], groups: Mapping[str, Sequence[str]], dataset_json: Mapping[str, Any]
) -> None:
    problems = [
        f"{', '.join(names)} (data identifier {identifier})"
        for identifier, names in groups.items()
        if len({settings_hash(plans, name, dataset_json) for name in names}) > 1
    ]
    if problems:
        raise complain(
            "Configurations share one data identifier but differ in how images are preprocessed:",
            problems,
            "Give each its own data identifier, or name one configuration with -c.",
        )
