"""Copies of a plans file that carry a split and the settings of the trainers, on the same preprocessed data."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunet_ssl.data.dataset_json import read_dataset_json
from nnunet_ssl.data.folders import load_plans, name_problem, preprocessed_base, write_json
from nnunet_ssl.data.plans_block import SOURCE
from nnunet_ssl.data.splits import find_split, read_splits, splits_path
from nnunet_ssl.data.text_files import read_json
from nnunet_ssl.errors import SemiSupervisedError, complain, one_line
from nnunet_ssl.planning.fit import Estimate, Fit, fitted
from nnunet_ssl.planning.small_network import SmallNetwork, shrink
from nnunet_ssl.system.failures import raise_failure
from nnunet_ssl.trainers.lookup import find_any_trainer
from nnunet_ssl.training.settings import (
    BLOCK,
    BLOCK_KEYS,
    CHANGED,
    TrainingSettings,
    find_problems,
    prediction_problems,
    settings_name,
)

RESERVED = ("dataset", "dataset_fingerprint", "splits_final", "splits_ssl")  # other JSON files of the same folder


@dataclass(frozen=True)
class PlansCopy:
    """What :func:`write_plans_copy` did, for the report to the user.

    Attributes:
        path: of the plans file.
        plans: its content.
        merged: the source carried settings already; the new ones were laid over them.
        unchanged: the file stood there with the same content.
        estimates: memory of each trainer and configuration, where plans were fitted to one.
    """

    path: str
    plans: dict[str, Any]
    merged: bool
    unchanged: bool
    estimates: Sequence[Estimate] = ()


def make_plans_copy(
    plans: Mapping[str, Any],
    name: str,
    split: str | None,
    training: Mapping[str, Any],
    hyperparameters: Mapping[str, Mapping[str, Any]],
    prediction: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Copy of a plans dictionary under another name, with a settings block. The argument is not changed.

    Nothing else differs: every configuration keeps its data_identifier, so that the preprocessed data serve both.

    Args:
        plans: a block that it carries already is kept where the new settings say nothing else.
        split: name of a split, or None for no split (or the one of the block).
        training: see :class:`nnunet_ssl.training.settings.TrainingSettings`.
        hyperparameters: trainer -> values; ``_<N>epochs`` at the end of a trainer's name is dropped.
        prediction: see :class:`nnunet_ssl.training.settings.PredictionSettings`.

    Raises:
        SemiSupervisedError: an unusable name, unknown trainers or settings, values out of range, all at once.
    """
    result = copy.deepcopy(dict(plans))
    result["plans_name"] = name
    problems = [p for p in (name_problem(name),) if p]
    old = result.get(BLOCK, {})
    if not isinstance(old, dict) or not all(
        isinstance(old.get(k, {}), dict) for k in ("training", "hyperparameters", "prediction", CHANGED)
    ):
        raise complain(f'plans["{BLOCK}"] of "{plans.get("plans_name")}" is damaged; start from other plans (-p).')
    problems += [f'unknown key "{key}" in plans["{BLOCK}"]' for key in old if key not in BLOCK_KEYS]
    block: dict[str, Any] = {**old}
    if split is not None:
        block["split"] = split
    if block.get("split") is not None and not isinstance(block["split"], str):
        problems.append(f'"split" must be the name of a split in splits_ssl.json, got {block["split"]!r}')
    if training or "training" in old:
        block["training"] = {**old.get("training", {}), **training}
    if prediction:
        block["prediction"] = {**old.get("prediction", {}), **prediction}
    problems += prediction_problems(block.get("prediction"))
    values = dict(old.get("hyperparameters", {}))
    for trainer, own in hyperparameters.items():
        values[settings_name(trainer)] = {**values.get(settings_name(trainer), {}), **own}
    if values:
        block["hyperparameters"] = values
    if not isinstance(block.get(SOURCE, ""), str):
        problems.append(f'"{SOURCE}" must be the name of the plans that were copied, got {block[SOURCE]!r}')
    problems += find_problems(TrainingSettings, block.get("training", {}), '"training"')
    problems += _hyperparameter_problems(values)
    if problems:
        raise complain(
            "These plans cannot be made:",
            problems,
            "Correct these settings; those of a trainer: nnunet_ssl methods -tr TRAINER",
        )
    result[BLOCK] = block
    return result


def _hyperparameter_problems(hyperparameters: Mapping[str, Any]) -> list[str]:
    problems = []
    for trainer, values in hyperparameters.items():
        try:
            kind = find_any_trainer(trainer).Hyperparameters
        except SemiSupervisedError as error:
            problems.append(one_line(error))
        else:
            problems += find_problems(kind, values, f'"hyperparameters" of {trainer}')
    return problems


def write_plans_copy(
    dataset_name_or_id: str | int,
    *,
    plans_identifier: str = "nnUNetPlans",
    name: str | None = None,
    split: str | None = None,
    training: Mapping[str, Any] | None = None,
    hyperparameters: Mapping[str, Mapping[str, Any]] | None = None,
    prediction: Mapping[str, Any] | None = None,
    network: SmallNetwork | None = None,
    fit: Fit | None = None,
    overwrite: bool = False,
) -> PlansCopy:
    """Write ``<name>.json`` beside the plans it is a copy of; ``<plans>_<split>`` unless named.

    Args:
        network: for a CPU, see :func:`nnunet_ssl.planning.small_network.shrink`; None: that of the plans.
        fit: memory of a training step, see :func:`nnunet_ssl.planning.fit.fitted`; None: as much as the plans take.

    Raises:
        SemiSupervisedError: no such dataset, plans or split; the name is taken (``overwrite`` replaces plans that carry
            a settings block, never those that nnU-Net made); see also :func:`make_plans_copy`.
    """
    base = preprocessed_base(dataset_name_or_id)
    source = load_plans(base, plans_identifier)
    if name is None:
        if split is None:
            raise complain("The copy needs a name.", remedy="Give --split or --name.")
        name = f"{plans_identifier}_{split}"
    if name in RESERVED:
        raise complain(f'"{name}" is the name of another file in {base}.', remedy="Choose another --name.")
    plans = make_plans_copy(source, name, split, training or {}, hyperparameters or {}, prediction)
    if network is not None:
        plans = shrink(plans, network)
    estimates: Sequence[Estimate] = ()
    if fit is not None:
        plans, estimates = fitted(plans, read_dataset_json(os.path.join(base, "dataset.json")), fit)
    if name != plans_identifier:  # else the settings of a copy are changed in place, and its source stays
        plans[BLOCK][SOURCE] = plans_identifier
    split = plans[BLOCK].get("split")  # asked for, or carried by the source
    if split is not None:
        find_split(read_splits(base, [split]), split, splits_path(base))
    path = os.path.join(base, f"{name}.json")
    unchanged = os.path.exists(path) and _check_taken(path, plans, overwrite)
    if not unchanged:
        write_json(path, plans, indent=4)
    merged = bool({*source.get(BLOCK, {})} - {CHANGED, SOURCE})
    return PlansCopy(path, plans, merged, unchanged, estimates)


def _check_taken(path: str, plans: dict[str, Any], overwrite: bool) -> bool:
    """Whether the file holds just these plans; an error if it holds others that may not be replaced."""
    try:
        present = read_json(path)
    except SemiSupervisedError as error:
        raise_failure(error)
        present = None
    if present == plans or present == _without_source(plans):  # written before the source was recorded
        return True
    if not isinstance(present, dict) or BLOCK not in present:
        raise complain(f"{path} exists and was not written by this command.", remedy="Choose another --name.")
    if not overwrite:
        raise complain(
            f"{path} exists with other content, and models may have been trained with it.",
            remedy="Choose another --name, or replace it with --overwrite.",
        )
    return False


def _without_source(plans: dict[str, Any]) -> dict[str, Any]:
    return {**plans, BLOCK: {key: value for key, value in plans[BLOCK].items() if key != SOURCE}}


def parse_assignments(items: Iterable[str]) -> dict[str, Any]:
    """["num_epochs=200", "optimizer=adamw"] -> {"num_epochs": 200, "optimizer": "adamw"}.

    A value is read as JSON where it is JSON (3, 0.1, true, null, [1, 2]), else as text.

    Raises:
        SemiSupervisedError: items without "=", or a key given twice.
    """
    return parse_settings_of_all(items, ())[0]


def parse_trainer_assignments(items: Iterable[str]) -> dict[str, dict[str, Any]]:
    """["nnUNetTrainerMeanTeacher:ema_decay=0.99"] -> {"nnUNetTrainerMeanTeacher": {"ema_decay": 0.99}}."""
    return parse_settings_of_all((), items)[1]


def parse_settings_of_all(
    training: Iterable[str], hyperparameters: Iterable[str]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Both kinds of settings, see the functions above.

    Raises:
        SemiSupervisedError: with every unreadable item of both.
    """
    problems: list[str] = []
    per_trainer: dict[str, list[str]] = {}
    own = _assignments(training, "", problems)
    for item in hyperparameters:
        trainer, colon, assignment = item.partition(":")
        if colon and trainer:
            per_trainer.setdefault(settings_name(trainer), []).append(assignment)
        else:
            problems.append(f'"{item}" is not of the form TRAINER:key=value')
    of_trainers = {trainer: _assignments(items, f"{trainer}: ", problems) for trainer, items in per_trainer.items()}
    if problems:
        raise complain("The settings are not readable:", problems, "Write every setting in that form, and once.")
    return own, of_trainers


def _assignments(items: Iterable[str], where: str, problems: list[str]) -> dict[str, Any]:
    """What is readable; the rest is added to the problems."""
    result: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key:
            problems.append(f'{where}"{item}" is not of the form key=value')
        elif key in result:
            problems.append(f'{where}"{key}" is given twice')
        else:
            result[key] = _value(text)
    return result


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
