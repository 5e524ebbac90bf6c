"""The settings block of a plans file: ``plans["nnunet_ssl"]``.

    {"split": "l10",
     "training": {"num_epochs": 200, "optimizer": "adamw", "initial_lr": 0.003},
     "hyperparameters": {"nnUNetTrainerMeanTeacher": {"consistency_weight": 0.1}},
     "prediction": {"stride": [4, 18, 18]},
     "source": "nnUNetPlans", "changed": {"2d": ["data_identifier", "spacing"]}}

"source" names the plans of which these are a copy; no training depends on it.
nnU-Net copies the plans to the results, to exported models and to every machine that predicts, so the settings
travel with the weights and no trainer needs constructor arguments.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from nnunet_ssl.data.external_trainers import has_settings
from nnunet_ssl.data.plans_block import BLOCK, CHANGED, SOURCE
from nnunet_ssl.errors import SemiSupervisedError, complain

BLOCK_KEYS = ("split", "training", "hyperparameters", "prediction", SOURCE, CHANGED)
LENGTH_VARIANT = re.compile(r"^(?P<base>.+)_(?P<epochs>[1-9]\d*)epochs$")

RECIPES = ("uamt", "dhc", "skcdf", "ssl4mis", "bcp_la", "admt_la", "plgcl", "dkuxnet")
"""Names of :mod:`published_recipes`, which imports PyTorch."""

T = TypeVar("T")

_known_trainers: set[str] = set()


def register_trainers(names: Iterable[str]) -> None:
    """Names that may stand under "hyperparameters", beside those that nnU-Net finds in nnUNet_extTrainer."""
    _known_trainers.update(names)


def setting(
    default: Any,
    doc: str,
    *,
    symbol: str = "",
    source: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> Any:
    """A dataclass field that documents and limits one setting.

    Args:
        default: value in force when the block does not name the setting.
        doc: meaning and unit.
        symbol: of the paper's or the documentation's equations, in LaTeX.
        source: the paper's value and where it stands (equation, table), or "recommended".
        low, high: inclusive limits of a number.
        choices: the allowed values of an option.
    """
    metadata = {"doc": doc, "symbol": symbol, "source": source, "low": low, "high": high, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


def other_default(parent: type, name: str, default: Any, *, source: str) -> Any:
    """The setting ``name`` of a parent dataclass with the default of a preset; all else stays the parent's."""
    (field,) = (f for f in dataclasses.fields(parent) if f.name == name)
    return dataclasses.field(default=default, metadata={**field.metadata, "source": source})


@dataclass(frozen=True)
class TrainingSettings:
    """What nnU-Net hard-codes per trainer class. ``None`` keeps nnU-Net's value. Applies to every trainer alike."""

    num_epochs: int | None = setting(None, "epochs; a trainer name ending in _<N>epochs wins", low=1)
    num_iterations_per_epoch: int | None = setting(None, "training steps per epoch (nnU-Net: 250)", low=1)
    num_val_iterations_per_epoch: int | None = setting(None, "validation steps per epoch (nnU-Net: 50)", low=1)
    save_every: int | None = setting(None, "epochs between two checkpoint_latest.pth (nnU-Net: 50)", low=1)
    optimizer: str | None = setting(None, "sgd: nnU-Net's own; adamw: for short runs", choices=("sgd", "adamw"))
    initial_lr: float | None = setting(None, "learning rate at the start (nnU-Net: 0.01)", low=0.0, high=10.0)
    weight_decay: float | None = setting(None, "weight decay (nnU-Net: 3e-5)", low=0.0, high=1.0)
    mirror_axes: list[int] | None = setting(  # noqa: RUF009 - a field, as the others
        None,
        "axes of the patch that augmentation and prediction may mirror, counted from 0 (nnU-Net: all); leave out the "
        "left-right axis where left and right are separate classes",
    )
    kept_epochs: list[int] | None = setting(  # noqa: RUF009 - a field, as the others
        None,
        "epochs after which the checkpoint is kept as checkpoint_epoch_<N>.pth, for predictions with several of them "
        "(nnU-Net: none)",
    )
    seed: int | None = setting(
        None,
        "of the initial weights and of the random choices outside the loading workers; not a promise that two runs "
        "are equal",
        low=0,
        high=2**31,
    )
    cpu_bfloat16: bool | None = setting(
        None,
        "on a CPU, networks of semi-supervised trainers compute in bfloat16, for processors that have it (AVX512-BF16, "
        "AMX), with the channels of a voxel beside one another; nnU-Net's own step, the losses and predictions stay in "
        "float32 (nnU-Net: off)",
    )
    recipe: str | None = setting(
        None,
        "train as a publication did in place of the trainer's own way: optimiser, schedule, length, batch, crops, "
        "augmentation, precision; what else stands here wins",
        choices=RECIPES,
    )


@dataclass(frozen=True)
class PredictionSettings:
    """How windows become a prediction, where publications do not do it as nnU-Net does.

    The validation at the end of a training and `nnunet_ssl predict-as-paper` follow them; nnUNetv2_predict does not.
    """

    stride: list[int] | None = setting(  # noqa: RUF009 - a field, as the others
        None,
        "voxels from one window to the next, per axis of the patch (nnU-Net: half the patch); needed for the others",
    )
    weights: str = setting("uniform", "of a window's voxels (nnU-Net: gaussian)", choices=("uniform", "gaussian"))
    averaged: str = setting(
        "probabilities", "what windows and networks average (nnU-Net: logits)", choices=("probabilities", "logits")
    )
    checkpoint: str = setting(
        "final",
        "of predict-as-paper: the last one, or the one that was best on the validation cases, which results then say",
        choices=("final", "best"),
    )


@dataclass(frozen=True)
class Settings:
    """The parsed block for one trainer; ``prediction`` is ``None`` where nnU-Net's own way is meant."""

    split: str | None
    training: TrainingSettings
    hyperparameters: Any
    prediction: PredictionSettings | None = None


def settings_name(trainer_name: str) -> str:
    """Name under which a trainer's hyper-parameters stand in the block: its own, without ``_<N>epochs``."""
    match = LENGTH_VARIANT.match(trainer_name)
    return match["base"] if match else trainer_name


def parse_settings(plans: dict[str, Any], trainer_name: str, hyperparameter_class: type) -> Settings:
    """Read the block of a plans file for one trainer.

    Raises:
        SemiSupervisedError: unknown keys, wrong types and values out of range, all listed at once.
    """
    block = plans.get(BLOCK, {})
    if not isinstance(block, dict):
        raise complain(f'plans["{BLOCK}"] must be a dictionary with the keys {", ".join(BLOCK_KEYS)}.')
    problems = [
        f'unknown key "{key}" in plans["{BLOCK}"]; allowed: {", ".join(BLOCK_KEYS)}'
        for key in block
        if key not in BLOCK_KEYS
    ]
    split = block.get("split")
    if split is not None and not isinstance(split, str):
        problems.append(f'"split" must be the name of a split in splits_ssl.json, got {split!r}')
    name = settings_name(trainer_name)
    hyperparameters = block.get("hyperparameters", {})
    own = hyperparameters.get(name, {}) if isinstance(hyperparameters, dict) else hyperparameters
    if isinstance(hyperparameters, dict):
        allowed = sorted(_known_trainers | {name})
        problems += [
            f'unknown trainer "{key}" in "hyperparameters"; allowed: {", ".join(allowed)}, '
            "and what nnU-Net finds in nnUNet_extTrainer"
            for key in hyperparameters
            if key not in allowed and not has_settings(key)
        ]
    problems += find_problems(TrainingSettings, block.get("training", {}), '"training"')
    problems += find_problems(hyperparameter_class, own, f'"hyperparameters" of {name}')
    prediction = block.get("prediction") or None
    problems += prediction_problems(prediction)
    if problems:
        raise complain(
            f'The block plans["{BLOCK}"] of plans "{plans.get("plans_name")}" is not usable for {trainer_name}:',
            problems,
            "Correct it with `nnunet_ssl plans` or in the plans file.",
        )
    return Settings(
        split,
        TrainingSettings(**block.get("training", {})),
        hyperparameter_class(**own),
        PredictionSettings(**prediction) if prediction else None,
    )


def prediction_problems(values: Any) -> list[str]:
    """What is wrong with ``plans["nnunet_ssl"]["prediction"]``; nothing where there is none."""
    if not values:
        return []
    problems = find_problems(PredictionSettings, values, '"prediction"')
    stride = values.get("stride") if isinstance(values, dict) else None
    if not problems and (not stride or any(type(step) is not int or step < 1 for step in stride)):
        problems.append(f'"prediction": stride = {stride!r} must be voxels per axis of the patch, each at least 1')
    return problems


def find_problems(settings_class: type, values: Any, where: str) -> list[str]:
    """Every unknown key, wrong type and value out of range of ``values`` for a settings dataclass."""
    if not isinstance(values, dict):
        return [f"{where} must be a dictionary, got {values!r}"]
    fields = {f.name: f for f in dataclasses.fields(settings_class)}
    hints = typing.get_type_hints(settings_class)
    problems = []
    for key, value in values.items():
        if key not in fields:
            allowed = ", ".join(fields) or "none, this trainer has no hyper-parameters"
            problems.append(f'unknown key "{key}" in {where}; allowed: {allowed}')
        else:
            problem = _problem_with_value(hints[key], fields[key].metadata, value)
            if problem:
                problems.append(f"{where}: {key} = {value!r} {problem}")
    return problems


def _problem_with_value(hint: Any, limits: typing.Mapping[str, Any], value: Any) -> str:
    union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    options = typing.get_args(hint) if union else (hint,)
    if value is None and type(None) in options:
        return ""
    expected = [o for o in options if o is not type(None)]
    if not any(_is_a(value, e) for e in expected):
        return f"must be {' or '.join(getattr(e, '__name__', str(e)) for e in expected)}"
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    choices, low, high = (limits.get(k) for k in ("choices", "low", "high"))
    if choices is not None and value not in choices:
        return f"must be one of {', '.join(map(repr, choices))}"
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        return f"must lie between {'-inf' if low is None else low} and {'inf' if high is None else high}"
    return ""


def _is_a(value: Any, expected: Any) -> bool:
    if expected is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, typing.get_origin(expected) or expected)


def check_kept_epochs(epochs: list[int] | None, length: int) -> None:
    """Raise SemiSupervisedError for epochs that a training of this length does not have."""
    if any(type(epoch) is not int or not 1 <= epoch <= length for epoch in epochs or []):
        raise complain(f'"training": kept_epochs = {epochs} must be whole numbers from 1 to {length}, the last epoch.')


def check_stride(prediction: PredictionSettings | None, plans: dict[str, Any], configuration: str) -> None:
    """Raise SemiSupervisedError for a stride that does not fit the patch of the configuration."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # as below

    if prediction is None or prediction.stride is None:
        return
    patch = PlansManager(plans).get_configuration(configuration).patch_size
    if len(prediction.stride) != len(patch) or any(s > p for s, p in zip(prediction.stride, patch, strict=True)):
        raise complain(
            f'"prediction": stride = {prediction.stride} does not fit configuration {configuration}, whose patch is '
            f"{list(patch)}: one number per axis, none larger than the patch.",
        )


def check_mirror_axes(axes: list[int] | None, plans: dict[str, Any], configuration: str) -> None:
    """Raise SemiSupervisedError for axes that the patch of the configuration does not have."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # brings PyTorch, which `path` is without

    dimensions = len(PlansManager(plans).get_configuration(configuration).patch_size)
    given = axes or []
    if any(type(a) is not int or a not in range(dimensions) for a in given) or len(set(given)) < len(given):
        raise complain(
            f'"training": mirror_axes = {axes} does not fit configuration {configuration}, whose axes are '
            f"{', '.join(map(str, range(dimensions)))} (none of them: []).",
        )


__all__ = [
    "BLOCK",
    "LENGTH_VARIANT",
    "PredictionSettings",
    "SemiSupervisedError",
    "Settings",
    "TrainingSettings",
    "check_kept_epochs",
    "check_mirror_axes",
    "check_stride",
    "find_problems",
    "other_default",
    "parse_settings",
    "prediction_problems",
    "register_trainers",
    "setting",
    "settings_name",
]
