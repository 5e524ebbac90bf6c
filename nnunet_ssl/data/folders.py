"""nnU-Net's folder of a preprocessed dataset: where it is, what it holds, and how a file is put into it."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ssl.errors import complain

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


def preprocessed_base(dataset_name_or_id: str | int) -> str:
    """nnUNet_preprocessed/DatasetXXX_Name.

    Raises:
        SemiSupervisedError: nnUNet_preprocessed is not set, or the dataset is unknown or not planned.
    """
    if not nnUNet_preprocessed.is_set():
        raise complain("The environment variable nnUNet_preprocessed is not set.", remedy="Set nnU-Net's paths first.")
    try:
        name = maybe_convert_to_dataset_name(dataset_name_or_id)
    except (RuntimeError, ValueError) as error:
        raise complain(f"There is no dataset {dataset_name_or_id}. nnU-Net says: {error}") from error
    base = os.path.join(nnUNet_preprocessed, str(name))
    if not os.path.isdir(base):
        raise complain(
            f"{name} has no preprocessed folder: {base} does not exist.",
            remedy=f"Run: nnUNetv2_plan_and_preprocess -d {dataset_id(base)}",
        )
    return base


def dataset_id(base: str) -> int:
    """The number in DatasetXXX_Name, which is what nnU-Net's commands take after -d."""
    return int(os.path.basename(base).removeprefix("Dataset").split("_")[0])


def load_plans(base: str, plans_identifier: str) -> dict[str, Any]:
    """The plans file of that name; the error lists the plans there are."""
    path = os.path.join(base, f"{plans_identifier}.json")
    content = _plans_in(path)
    if content is None:
        files = sorted(os.listdir(base)) if os.path.isdir(base) else []
        available = [f[:-5] for f in files if f.endswith(".json") and _plans_in(os.path.join(base, f)) is not None]
        raise complain(
            f"{path} does not exist or is no plans file. Plans of this dataset: {', '.join(available) or 'none'}.",
            remedy="" if available else f"Run: nnUNetv2_plan_and_preprocess -d {dataset_id(base)}",
        )
    return content


def _plans_in(path: str) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and isinstance(content.get("configurations"), dict) else None


def labeled_cases(base: str, plans: dict[str, Any]) -> list[str]:
    """Sorted identifiers of the preprocessed labelled cases, the same in every preprocessed configuration.

    Raises:
        SemiSupervisedError: nothing is preprocessed, or configurations hold different cases.
    """
    manager = PlansManager(plans)
    found: dict[str, set[str]] = {}
    for configuration in manager.available_configurations:
        folder = os.path.join(base, manager.get_configuration(configuration).data_identifier)
        if os.path.isdir(folder) and os.listdir(folder):
            found[folder] = set(infer_dataset_class(folder).get_identifiers(folder))
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


def write_json(path: str, content: Mapping[str, Any], indent: int = 2) -> None:
    """Write to a temporary file in the same folder, then rename: a reader sees the old or the new one, whole.

    Raises:
        SemiSupervisedError: NaN or infinity in it, which JSON does not have; nothing is written then.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    problems = [f"{where}: {value}" for where, value in _not_finite(content)]
    if problems:
        raise complain(f"{path} was not written, for JSON has no such numbers:", problems, "Correct these values.")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=indent, allow_nan=False)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def _not_finite(content: Any, where: str = "") -> Iterator[tuple[str, float]]:
    """Place and value of every NaN or infinity, the place as keys joined by dots."""
    if isinstance(content, float) and not math.isfinite(content):
        yield where, content
    items = content.items() if isinstance(content, Mapping) else ()
    items = enumerate(content) if isinstance(content, (list, tuple)) else items
    for key, value in items:
        yield from _not_finite(value, f"{where}.{key}" if where else str(key))
