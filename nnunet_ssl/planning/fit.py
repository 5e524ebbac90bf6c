"""Plans whose training step fits a memory: fewer patches, then smaller ones, by nnU-Net's own rules."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

from nnunet_ssl.errors import SemiSupervisedError, complain
from nnunet_ssl.planning.rehearsal import StepCost, rehearse
from nnunet_ssl.planning.small_network import MIN_EDGE, network_of_patch, read_configuration
from nnunet_ssl.trainers import FIRST_CHOICE
from nnunet_ssl.trainers.lookup import find_any_trainer
from nnunet_ssl.training.settings import BLOCK, CHANGED

MIN_BATCH = 2  # UNet_min_batch_size of nnU-Net's planners
SMALLEST = 1 / 8  # of the voxels of the plans' patch: a smaller one shows a network too little of an organ
GIB = 2**30


@dataclass(frozen=True)
class Fit:
    """What was asked for.

    Attributes:
        gib: that a training step may take.
        trainers: each of which has to fit.
        configurations: to be fitted; none: all that semi-supervised trainers support.
    """

    gib: float
    trainers: Sequence[str]
    configurations: Sequence[str] = ()


@dataclass(frozen=True)
class Estimate:
    """What one trainer needs in one configuration.

    Attributes:
        configuration, trainer: their names.
        before, after: GiB at most in a training step in mixed precision, with the plans as they were and as they are.
    """

    configuration: str
    trainer: str
    before: float
    after: float


def fitted(plans: dict[str, Any], dataset_json: dict[str, Any], fit: Fit) -> tuple[dict[str, Any], list[Estimate]]:
    """A copy of the plans with a batch and a patch for the memory, and what each trainer needs.

    The batch shrinks to two patches first, then the patch, along the axis that is longest for the images, and with it
    the depth of the network. What fits stays as it is.

    Args:
        plans: they stay as they are.
        dataset_json: of nnU-Net, whose classes and channels count.
        fit: what is asked for.

    Raises:
        SemiSupervisedError: not even the smallest patch fits; no such configuration or trainer, or one that does not
            support the configuration.
    """
    result, estimates = copy.deepcopy(plans), []
    trainers = {trainer: find_any_trainer(trainer) for trainer in fit.trainers}
    for name in fit.configurations or fittable(plans):
        source = read_configuration(result, name)

        def needs(batch: int, patch: Sequence[int], name: str = name) -> dict[str, StepCost]:
            tried = changed_configuration(plans, name, batch, patch)
            return {trainer: rehearse(kind, tried, name, dataset_json) for trainer, kind in trainers.items()}

        batch, patch = source["batch_size"], [int(n) for n in source["patch_size"]]
        try:
            before = after = needs(batch, patch)
        except NotImplementedError as error:
            raise complain(
                f"The memory of {name} cannot be planned: {error}",
                remedy="Choose other trainers with -tr, or other configurations with -c.",
            ) from error
        if _peak(after) > fit.gib * GIB:
            batch, patch, after = _shrunk(source, needs, before, fit, name)
            result = changed_configuration(result, name, batch, patch)
            changed = result.setdefault(BLOCK, {}).setdefault(CHANGED, {})
            keys = [key for key in ("patch_size", "batch_size", "architecture") if _differs(result, source, name, key)]
            changed[name] = sorted({*changed.get(name, []), *keys})
        estimates += [
            Estimate(name, trainer, cost.peak / GIB, after[trainer].peak / GIB) for trainer, cost in before.items()
        ]
    return result, estimates


def fittable(plans: dict[str, Any]) -> list[str]:
    """Configurations with a patch of their own that are no stage of a cascade."""
    found = plans["configurations"].items()
    return [name for name, own in found if "patch_size" in own and own.get("previous_stage") is None]


def changed_configuration(plans: dict[str, Any], name: str, batch: int, patch: Sequence[int]) -> dict[str, Any]:
    """A copy with another batch and patch in one configuration, and as many stages as nnU-Net gives such a patch."""
    result = copy.deepcopy(plans)
    own = result["configurations"][name]
    own["batch_size"] = batch
    if [*patch] != [*own["patch_size"]]:
        own["patch_size"] = [*patch]
        own["architecture"]["arch_kwargs"] |= network_of_patch(own, patch)
    return result


def smaller_patches(configuration: dict[str, Any]) -> Iterable[list[int]]:
    """One after the other as nnU-Net's planner tries them: a step less along the axis that is longest for the images,
    down to an eighth of the voxels.

    Source: ExperimentPlanner.get_plans_for_configuration of nnU-Net 2.8.
    """
    spacing, median = configuration["spacing"], configuration["median_image_size_in_voxels"]
    patch = [int(n) for n in configuration["patch_size"]]
    divisors = get_pool_and_conv_props(spacing, patch, MIN_EDGE, 999999)[4]
    while True:
        axis = int(np.argsort(np.divide(patch, median))[-1])
        tried = [*patch]
        tried[axis] -= int(divisors[axis])
        if tried[axis] < MIN_EDGE:
            return
        divisors = get_pool_and_conv_props(spacing, tried, MIN_EDGE, 999999)[4]
        patch[axis] -= int(divisors[axis])
        _, strides, _, padded, divisors = get_pool_and_conv_props(spacing, patch, MIN_EDGE, 999999)
        patch = [int(n) for n in padded]
        if len(strides) < 2 or prod(patch) < SMALLEST * prod(configuration["patch_size"]):
            return
        yield [*patch]


def _shrunk(
    source: dict[str, Any], needs: Callable[..., dict[str, StepCost]], cost: dict[str, StepCost], fit: Fit, name: str
) -> tuple[int, list[int], dict[str, StepCost]]:
    """(batch, patch, cost) of the largest that fits."""
    limit, patch = fit.gib * GIB, [int(n) for n in source["patch_size"]]
    fits, too_many, found = 0, source["batch_size"], cost
    if too_many > MIN_BATCH:
        found = needs(MIN_BATCH, patch)
        fits = MIN_BATCH if _peak(found) <= limit else 0
    while fits and too_many - fits > 1:
        middle = (fits + too_many) // 2
        tried = needs(middle, patch)
        if _peak(tried) <= limit:
            fits, found = middle, tried
        else:
            too_many = middle
    if fits:
        return fits, patch, found
    batch, known = min(source["batch_size"], MIN_BATCH), patch
    for patch in smaller_patches(source):
        share = prod(patch) / prod(known)
        far = max(cost.resident + cost.kept * share for cost in found.values()) > 1.2 * limit
        if far and share > 0.5:  # not worth a rehearsal
            continue
        try:
            found, known = needs(batch, patch), patch
        except (NotImplementedError, SemiSupervisedError):  # the network has too few stages for a trainer
            break
        if _peak(found) <= limit:
            return batch, patch, found
    least = max(found, key=lambda trainer: found[trainer].peak)
    gib = math.ceil(10 * found[least].peak / GIB) / 10
    raise complain(
        f"{least} does not fit {fit.gib:g} GiB in {name}: it needs {found[least].peak / GIB:.2g} GiB even with "
        f"{batch} labelled patches of {' x '.join(map(str, known))}.",
        remedy=f"Give it --fit {gib:g}, or name a trainer that needs less with -tr, such as {FIRST_CHOICE}.",
    )


def _peak(costs: dict[str, StepCost]) -> int:
    return max(cost.peak for cost in costs.values())


def _differs(plans: dict[str, Any], source: dict[str, Any], name: str, key: str) -> bool:
    return bool(plans["configurations"][name].get(key) != source.get(key))
