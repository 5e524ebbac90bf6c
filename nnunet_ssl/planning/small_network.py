"""Copies of nnU-Net's plans whose network is small enough for a CPU: narrow stages, a small patch, coarser voxels.

nnU-Net's planner offers no such setting: even its smallest memory target gives 32 features and more.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ssl.data.published_networks import DIVISOR, STAGES, architecture
from nnunet_ssl.errors import complain
from nnunet_ssl.training.settings import BLOCK, CHANGED

FEATURES = (8, 16, 32, 64)
MIN_EDGE = 4  # voxels of the coarsest feature map per axis, UNet_featuremap_min_edge_length of nnU-Net's planners
CASCADE = ("inherits_from", "previous_stage", "next_stage")  # other configurations, which the copy does not have
PER_STAGE = ("n_conv_per_stage", "n_blocks_per_stage")  # of the plain and of the residual encoder
CHANGEABLE = ("data_identifier", "spacing", "median_image_size_in_voxels", "patch_size", "batch_size", "architecture")


@dataclass(frozen=True)
class SmallNetwork:
    """What to change in one configuration; None keeps the value of the plans.

    Attributes:
        configuration: the one that the copy has.
        features: channels of each stage, which also says how many stages; None: 8, doubled per stage up to 64, or those
            of the publication's network.
        patch_size: voxels per axis; None: that of the plans, or the whole median image where this is smaller.
        batch_size: patches per step.
        spacing: millimetres per axis in the order of the plans, or one number for every axis.
        network: name of a publication's network, see ``published_networks``; None: nnU-Net's own.
        dropout: of whole channels in that network; None: without.
    """

    configuration: str
    features: Sequence[int] | None = None
    patch_size: Sequence[int] | None = None
    batch_size: int | None = None
    spacing: Sequence[float] | None = None
    network: str | None = None
    dropout: float | None = None


def with_small_network(
    plans: dict[str, Any],
    configuration: str,
    name: str,
    patch_size: Sequence[int],
    batch_size: int = 2,
    **network: Any,
) -> dict[str, Any]:
    """A copy with one configuration, and in that another patch, batch and network.

    The configuration keeps its data_identifier: the preprocessed data serve both plans.

    Args:
        plans: of nnU-Net; they stay as they are.
        name: of the copy.
        network: arguments of the network that change, as in the plans' ``arch_kwargs``.

    Raises:
        KeyError: the plans lack the configuration.
    """
    settings = copy.deepcopy(plans["configurations"][configuration])
    settings |= {"patch_size": list(patch_size), "batch_size": batch_size}
    settings["architecture"]["arch_kwargs"] |= network
    return copy.deepcopy(plans) | {"plans_name": name, "configurations": {configuration: settings}}


def shrink(plans: dict[str, Any], small: SmallNetwork) -> dict[str, Any]:
    """A copy with one configuration and a network for its patch by nnU-Net's own rules (``get_pool_and_conv_props``).

    With another spacing the configuration gets a data_identifier of its own, made of the old one and the spacing, so
    that it never meets data of another spacing. ``plans["nnunet_ssl"]["changed"]`` names what differs on purpose:
    configuration -> keys.

    Args:
        plans: they stay as they are.
        small: what changes.

    Raises:
        SemiSupervisedError: no such configuration, or values that nnU-Net could not use.
    """
    name = small.configuration
    source = read_configuration(plans, name)
    problems = _problems(small, len(source["patch_size"]))
    if problems:
        raise _refused(problems)
    resampled = source | _resampled(source, small.spacing)
    batch = source["batch_size"] if small.batch_size is None else small.batch_size
    if small.network is None:
        patch, network = _network(resampled, small)
    else:
        patch, network = _published_patch(resampled, small), {}
        resampled["architecture"] = architecture(small.network, len(patch), small.dropout, small.features)
    alone = plans | {"configurations": {name: resampled}}
    result = with_small_network(alone, name, plans["plans_name"], patch, batch, **network)
    block, configuration = result.get(BLOCK, {}), result["configurations"][name]
    before = block.get(CHANGED, {}).get(name, [])  # where a copy is copied
    changed = [key for key in CHANGEABLE if key in before or configuration.get(key) != source.get(key)]
    result[BLOCK] = block | {CHANGED: {name: changed}}
    return result


def read_configuration(plans: dict[str, Any], name: str) -> dict[str, Any]:
    """A copy with what it inherits, and without what ties it to other configurations.

    Raises:
        SemiSupervisedError: there is none of that name, or it is a stage of a cascade or no U-Net of nnU-Net's.
    """
    if name not in plans["configurations"]:
        raise _refused([f"the plans have no configuration {name}; they have {', '.join(plans['configurations'])}"])
    configuration = copy.deepcopy(PlansManager(plans).get_configuration(name).configuration)
    if configuration.get("previous_stage") is not None:
        raise _refused([f"{name} is a stage of a cascade, which semi-supervised trainers do not support"])
    network = configuration.get("architecture", {}).get("arch_kwargs", {})
    missing = [key for key in CHANGEABLE if key not in configuration]
    missing += [key for key in ("strides", "kernel_sizes", "n_conv_per_stage_decoder") if key not in network]
    if not any(key in network for key in PER_STAGE):
        missing.append(" or ".join(PER_STAGE))
    if missing:
        raise _refused([f"the network of {name} is none of nnU-Net's U-Nets; it lacks {', '.join(missing)}"])
    return {key: value for key, value in configuration.items() if key not in CASCADE}


def _refused(problems: Sequence[str]) -> Exception:
    return complain(
        "These plans cannot be made smaller:",
        problems,
        "Correct these options; what they take: nnunet_ssl plans --help",
    )


def _problems(small: SmallNetwork, axes: int) -> list[str]:
    problems = []
    if small.patch_size is not None and len(small.patch_size) != axes:
        problems.append(f"--patch: {small.configuration} has {axes} axes, got {_text(small.patch_size)}")
    if small.spacing is not None and len(small.spacing) not in (1, axes):
        problems.append(f"--spacing: {small.configuration} has {axes} axes, got {_text(small.spacing)}")
    if not all(math.isfinite(value) and value > 0 for value in small.spacing or ()):
        problems.append(f"--spacing: millimetres above 0, got {_text(small.spacing or ())}")
    if small.network is not None and small.features is not None and len(small.features) != STAGES:
        problems.append(f"--features: --network {small.network} has {STAGES} stages, got {_text(small.features)}")
    if small.dropout is not None and (small.network is None or not 0 < small.dropout < 1):
        problems.append(f"--dropout: with --network, above 0 and below 1, got {small.dropout:g}")
    numbers = {"--patch": small.patch_size, "--features": small.features}
    if small.batch_size is not None:
        numbers["--batch"] = [small.batch_size]
    problems += [f"{key}: at least 1, got {_text(own)}" for key, own in numbers.items() if own and min(own) < 1]
    return problems


def _resampled(source: dict[str, Any], spacing: Sequence[float] | None) -> dict[str, Any]:
    """Spacing, median size and data_identifier, where the spacing is another."""
    old = source["spacing"]
    new = [float(value) for value in (spacing or old)] * (len(old) if spacing is not None and len(spacing) == 1 else 1)
    if new == old:
        return {}
    sizes = np.multiply(source["median_image_size_in_voxels"], np.divide(old, new))
    return {
        "spacing": new,
        "median_image_size_in_voxels": np.round(sizes).tolist(),
        "data_identifier": f"{source['data_identifier']}_spacing{'x'.join(f'{value:g}' for value in new)}",
    }


def _published_patch(configuration: dict[str, Any], small: SmallNetwork) -> list[int]:
    patch = list(small.patch_size or configuration["patch_size"])
    if any(edge % DIVISOR for edge in patch):
        raise _refused([f"--network {small.network}: the patch needs multiples of {DIVISOR}, got {_text(patch)}"])
    return patch


def _network(configuration: dict[str, Any], small: SmallNetwork) -> tuple[list[int], dict[str, Any]]:
    """The patch, and the arguments of the network that change."""
    old, spacing = configuration["architecture"]["arch_kwargs"], configuration["spacing"]
    wanted = small.patch_size
    if wanted is None:
        sizes = zip(configuration["patch_size"], configuration["median_image_size_in_voxels"], strict=True)
        wanted = [max(1, min(int(size), math.ceil(median))) for size, median in sizes]
    _, strides, kernels, _, _ = get_pool_and_conv_props(spacing, wanted, MIN_EDGE, 999)
    most = len(strides)
    features = small.features or [min(FEATURES[0] * 2**stage, FEATURES[-1]) for stage in range(most)]
    stages = len(features)
    if not 2 <= stages <= most:
        limits = f"2 to {most} stages" if most > 1 else "no second stage"
        raise _refused([f"a patch of {_text(wanted)} allows {limits} by nnU-Net's rules; --features has {stages}"])
    divisors = np.prod(strides[:stages], axis=0)
    fitting = [math.ceil(size / divisor) * int(divisor) for size, divisor in zip(wanted, divisors, strict=True)]
    if small.patch_size is not None and fitting != list(wanted):
        raise _refused(
            [f"--patch: the strides ask for multiples of {_text(divisors)}; {_text(wanted)} would be {_text(fitting)}"]
        )
    return fitting, _of_stages(old, features, strides[:stages], [*kernels[: stages - 1], [3] * len(wanted)])


def network_of_patch(configuration: dict[str, Any], patch: Sequence[int]) -> dict[str, Any]:
    """Arguments of the network that change with the patch: as many stages as nnU-Net gives it, at most those there are.

    Args:
        configuration: of nnU-Net's plans, with a U-Net.
        patch: voxels per axis.
    """
    old = configuration["architecture"]["arch_kwargs"]
    _, strides, kernels, _, _ = get_pool_and_conv_props(configuration["spacing"], patch, MIN_EDGE, 999999)
    stages = min(len(strides), old["n_stages"])
    return _of_stages(old, old["features_per_stage"][:stages], strides[:stages], kernels[:stages])


def _of_stages(old: dict[str, Any], features: Sequence[int], strides: Any, kernels: Any) -> dict[str, Any]:
    stages = len(features)
    network = {
        "n_stages": stages,
        "features_per_stage": list(features),
        "strides": [list(stride) for stride in strides],
        "kernel_sizes": [list(kernel) for kernel in kernels],  # nnU-Net's own for the last stage
        "n_conv_per_stage_decoder": _first(old["n_conv_per_stage_decoder"], stages - 1),
    }
    return network | {key: _first(old[key], stages) for key in PER_STAGE if key in old}


def _first(per_stage: int | Sequence[int], stages: int) -> int | list[int]:
    """As many as there are stages; nnU-Net repeats the last one."""
    if isinstance(per_stage, int):
        return per_stage
    return [*per_stage, *[per_stage[-1]] * stages][:stages]


def _text(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
