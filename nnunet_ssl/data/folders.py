"""nnU-Net's folder of a preprocessed dataset: where it is, what it holds, and how a file is put into it."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ssl.data.text_files import read_json
from nnunet_ssl.data.unlabeled_store import unlabeled_identifiers
from nnunet_ssl.errors import SemiSupervisedError, complain
from nnunet_ssl.system.failures import raise_failure
from nnunet_ssl.system.whole_files import write_whole

FINGERPRINT = "dataset_fingerprint.json"
DATASET_NAME = re.compile(r"Dataset\d+_[^/\\]+")
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


def preprocessed_base(dataset_name_or_id: str | int) -> str:
    """nnUNet_preprocessed/DatasetXXX_Name.

    Raises:
        SemiSupervisedError: nnUNet_preprocessed is not set, or the dataset is unknown or not planned.
    """
    if not nnUNet_preprocessed.get():
        raise complain(
            "The environment variable nnUNet_preprocessed is not set.",
            remedy="Say where that folder is: export nnUNet_preprocessed=FOLDER",
        )
    asked = str(dataset_name_or_id).rstrip("/\\")  # tab completion of a folder's name leaves a slash
    try:
        name = str(maybe_convert_to_dataset_name(asked))
    except (RuntimeError, ValueError) as error:
        raise _no_dataset(f"There is no dataset {asked}. nnU-Net says: {error}") from error
    if not DATASET_NAME.fullmatch(name):
        raise _no_dataset(f'"{name}" is not the name of a dataset. Names look like Dataset004_Hippocampus.')
    base = os.path.join(nnUNet_preprocessed, name)
    if os.path.isdir(base):
        return base
    if nnUNet_raw.get() and os.path.isdir(os.path.join(nnUNet_raw, name)):
        raise complain(
            f"{name} has no preprocessed folder: {base} does not exist.",
            remedy=f"Run: {planning_command(base)}",
        )
    raise _no_dataset(f"There is no dataset {name}.")


def _no_dataset(summary: str) -> SemiSupervisedError:
    places, found = [], set[str]()
    for variable in (nnUNet_raw, nnUNet_preprocessed):
        folder = variable.get()
        places.append(f"{variable.env_var_name}={folder or '(not set)'}")
        names = os.listdir(folder) if folder and os.path.isdir(folder) else []
        found.update(name for name in names if DATASET_NAME.fullmatch(name))
    return complain(
        f"{summary} Looked in:", places, f"Datasets there: {', '.join(sorted(found)) or 'none'}. Give a name or an id."
    )


def dataset_id(base: str) -> int:
    """The number in DatasetXXX_Name, which is what nnU-Net's commands take after -d."""
    return int(os.path.basename(base).removeprefix("Dataset").split("_")[0])


def planning_command(base: str, configurations: Iterable[str] = ()) -> str:
    """nnU-Net's command for planning, with --clean where it would go on from the fingerprint of earlier images."""
    words = ["nnUNetv2_plan_and_preprocess", "-d", str(dataset_id(base))]
    words += ["-c", *configurations] if configurations else []
    if not os.path.isfile(os.path.join(base, FINGERPRINT)):
        return " ".join(words)
    return f"{' '.join([*words, '--clean'])}   (without --clean nnU-Net keeps its old {FINGERPRINT})"


def load_plans(base: str, plans_identifier: str) -> dict[str, Any]:
    """The plans file of that name.

    Raises:
        SemiSupervisedError: there is none, with the plans there are; or nnU-Net could not use it.
    """
    path = os.path.join(base, f"{plans_identifier}.json")
    content = read_json(path, dict, nnunet_reads_it=True) if os.path.lexists(path) else None
    if content is None or not _are_plans(content):
        files = sorted(os.listdir(base)) if os.path.isdir(base) else []
        available = [f[:-5] for f in files if f.endswith(".json") and read_plans(os.path.join(base, f)) is not None]
        raise complain(
            f"{path} does not exist or is not a plans file. Plans of this dataset: {', '.join(available) or 'none'}.",
            remedy="Name one of these with -p." if available else f"Run: {planning_command(base)}",
        )
    problems = _plans_problems(content)
    if problems:
        raise complain(
            f"{path} cannot be used:", problems, f"Correct it there, or plan again: {planning_command(base)}"
        )
    return content


def _plans_problems(plans: dict[str, Any]) -> list[str]:
    """What stops nnU-Net at once, whatever is asked of the plans."""
    problems = [] if isinstance(plans.get("plans_name"), str) else ["it has no plans_name"]
    configurations = plans["configurations"]
    broken = [name for name, content in configurations.items() if not isinstance(content, dict)]
    if broken:
        return [*problems, f"configurations that are not dictionaries: {', '.join(broken)}"]
    for name in configurations:
        seen, current = [name], name
        while (parent := configurations[current].get("inherits_from")) is not None:
            if not isinstance(parent, str) or parent not in configurations:
                problems.append(f'configuration {current} inherits from "{parent}", which is not there')
                break
            if parent in seen:
                problems.append(f"configuration {name} inherits from itself: {' -> '.join([*seen, parent])}")
                break
            seen, current = [*seen, parent], parent
    return list(dict.fromkeys(problems))


def read_plans(path: str) -> dict[str, Any] | None:
    """Content of a plans file, usable or not; None where the file is none."""
    try:
        content: dict[str, Any] = read_json(path, dict)
    except SemiSupervisedError as error:
        raise_failure(error)
        return None
    return content if _are_plans(content) else None


def _are_plans(content: Mapping[str, Any]) -> bool:
    return isinstance(content.get("configurations"), dict)


def labeled_cases(base: str, plans: dict[str, Any]) -> list[str]:
    """Sorted identifiers of the preprocessed labelled cases, the same in every preprocessed configuration.

    Raises:
        SemiSupervisedError: nothing is preprocessed, or configurations hold different cases.
    """
    manager = PlansManager(plans)
    found: dict[str, set[str]] = {}
    for configuration in manager.available_configurations:
        folder = os.path.join(base, manager.get_configuration(configuration).data_identifier)
        if identifiers := unlabeled_identifiers(folder):  # other files, such as .DS_Store, are no cases
            found[folder] = set(identifiers)
    dataset, name = dataset_id(base), manager.plans_name
    everything = set[str]().union(*found.values())
    if not everything:
        raise complain(
            f"No configuration of {name} is preprocessed in {base}.",
            remedy=f"Run: nnUNetv2_preprocess -d {dataset} -plans_name {name} -c CONFIGURATION",
        )
    missing = [f"{folder}: {', '.join(sorted(everything - ids))}" for folder, ids in found.items() if everything - ids]
    if missing:
        raise complain(
            "The configurations do not hold the same labelled cases. Missing:",
            missing,
            f"Repeat `nnUNetv2_preprocess -d {dataset} -plans_name {name} -c CONFIGURATION`, or delete those folders.",
        )
    return sorted(everything)


def name_problem(name: str) -> str:
    """Why a name cannot be part of nnU-Net's result folders (split at "__"); empty if it can."""
    if NAME.fullmatch(name) and "__" not in name:
        return ""
    return (
        f'"{name}": use letters, digits, ".", "-" and single "_", a letter or digit at both ends '
        "(nnU-Net takes result folders apart at a double underscore)"
    )


def existing_part(path: str) -> str:
    """The path itself, or the innermost folder above it that exists: what permission to write depends on."""
    existing = os.path.abspath(path)
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    return existing


def write_json(path: str, content: Mapping[str, Any], indent: int = 2) -> None:
    """Written in one step, see :func:`whole_file`.

    Raises:
        SemiSupervisedError: NaN or infinity in it, which JSON does not have; nothing is written then.
        SystemFailure: no space left and the like.
    """
    problems = [f"{where}: {value}" for where, value in _not_finite(content)]
    if problems:
        raise complain(f"{path} was not written, because JSON has no such numbers:", problems, "Correct these values.")
    write_whole(path, json.dumps(content, indent=indent, allow_nan=False).encode())


def _not_finite(content: Any, where: str = "") -> Iterator[tuple[str, float]]:
    """Place and value of every NaN or infinity, the place as keys joined by dots."""
    if isinstance(content, float) and not math.isfinite(content):
        yield where, content
    items: Iterable[tuple[Any, Any]] = content.items() if isinstance(content, Mapping) else ()
    if isinstance(content, (list, tuple)):
        items = enumerate(content)
    for key, value in items:
        yield from _not_finite(value, f"{where}.{key}" if where else str(key))
