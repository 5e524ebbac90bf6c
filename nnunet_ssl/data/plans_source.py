"""Of which plans a copy was made, and where the two state different preprocessing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ssl.data.folders import read_plans
from nnunet_ssl.data.plans_block import BLOCK, SOURCE
from nnunet_ssl.data.preprocess_case import preprocessing_settings


def data_identifiers(plans: Mapping[str, Any]) -> dict[str, str]:
    """Configuration -> name of its preprocessed folder, inheritance resolved; without those that name none."""
    manager = PlansManager(dict(plans))
    resolved = {name: manager.get_configuration(name).configuration for name in manager.available_configurations}
    return {name: own["data_identifier"] for name, own in resolved.items() if "data_identifier" in own}


def source_of(base: str, plans: Mapping[str, Any]) -> str | None:
    """Name of the plans file beside this one of which it is a copy; None: it is none, or its source is not here.

    Copies of `nnunet_ssl plans` say it. Of others it is told by nnU-Net's naming: the data of its plans P are called
    P_CONFIGURATION, so that other plans of the same planner on these data are a copy of P.

    Args:
        base: nnUNet_preprocessed/DatasetXXX_Name.
        plans: content of the plans file.
    """
    block = plans.get(BLOCK)
    recorded = block.get(SOURCE) if isinstance(block, dict) else None
    if isinstance(recorded, str):
        return recorded if recorded != plans.get("plans_name") and _content(base, recorded) is not None else None
    for configuration, identifier in data_identifiers(plans).items():
        owner = identifier.removesuffix(f"_{configuration}")
        if owner not in (identifier, plans.get("plans_name")) and _same_planner(_content(base, owner), plans):
            return owner
    if BLOCK not in plans:
        return None
    others = (name for name, other in plans_beside(base, plans) if BLOCK not in other and _same_planner(other, plans))
    return next(others, None)


def plans_beside(base: str, plans: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and content of the other plans of the dataset that use some of the same preprocessed data."""
    own = set(data_identifiers(plans).values())
    for file in sorted(os.listdir(base)):
        name = file.removesuffix(".json")
        if name == file or name == plans.get("plans_name"):
            continue
        content = _content(base, name)
        if content is not None and own & set(data_identifiers(content).values()):
            yield name, content


def counterpart(plans: Mapping[str, Any], other: Mapping[str, Any], configuration: str) -> str | None:
    """The configuration of other plans that uses the same preprocessed data as this one; None: no such."""
    identifier = data_identifiers(plans).get(configuration)
    sharing = [name for name, found in data_identifiers(other).items() if found == identifier]
    return configuration if configuration in sharing else next(iter(sharing), None)


def differences(plans: Mapping[str, Any], source: Mapping[str, Any], configuration: str) -> list[str]:
    """What preprocessing would take differently from the source for the same data; none if these are not shared.

    The keys of :func:`preprocessing_settings`.
    """
    name = counterpart(plans, source, configuration)
    if name is None:
        return []
    own, other = preprocessing_settings(plans, configuration), preprocessing_settings(source, name)
    return [key for key in own if _as_json(own[key]) != _as_json(other[key])]


def _content(base: str, name: str) -> dict[str, Any] | None:
    """A plans file that can be compared; others are the business of :func:`load_plans`."""
    content = read_plans(os.path.join(base, f"{name}.json"))
    try:
        if content is not None:
            data_identifiers(content)
    except Exception:  # inheritance that leads nowhere, configurations that are none
        return None
    return content


def _same_planner(plans: Mapping[str, Any] | None, other: Mapping[str, Any]) -> bool:
    key = "experiment_planner_used"
    return plans is not None and plans.get(key) == other.get(key)


def _as_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
