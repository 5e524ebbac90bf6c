"""What a benchmark consists of: read from a YAML or JSON file (see EXAMPLE), put together from the command line."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from typing import Any

from nnunet_ssl.data.text_files import read_yaml
from nnunet_ssl.errors import complain

EXAMPLE = """\
  trainers: [nnUNetTrainerFixMatch, nnUNetTrainerSKCDF]       # nnUNetTrainerSupervised is added
  splits: [n6, n12]                                           # names in splits_ssl.json
  folds: [0, 1]
  seeds: [0, 1, 2]
  training: {num_epochs: 200}                                 # for every trainer alike
  hyperparameters: {nnUNetTrainerSKCDF: {unsupervised_weight: 2.0}}
  device: cuda
  datasets:
    - dataset: 4                                              # what stands here replaces what stands above
      configurations: [3d_fullres]
      test_images: imagesTs                                   # optional, with test_labels; paths may be
      test_labels: labelsTs                                   # relative to the folder of this file
"""
DEVICES = ("cuda", "cpu", "mps")  # the first is nnU-Net's default
LISTS = {"configurations": str, "trainers": str, "splits": str, "folds": int, "seeds": int}
TEXTS = ("plans", "test_images", "test_labels", "protocol")
TYPE_NAMES = {str: "text", int: "whole numbers"}


@dataclass(frozen=True)
class Experiment:
    """The part of a benchmark that concerns one dataset.

    Attributes:
        dataset: name or id.
        configurations, trainers, splits, folds, seeds: every combination becomes a job.
        plans: name of the plans that are copied.
        training: settings for every trainer alike, see ``nnunet_ssl.training.settings.TrainingSettings``.
        hyperparameters: trainer -> values.
        test_images, test_labels: folders of a test set, absolute; both or none.
        protocol: name of the published protocol that splits and folds follow, for the report.
    """

    dataset: str
    configurations: tuple[str, ...]
    trainers: tuple[str, ...]
    splits: tuple[str, ...]
    plans: str = "nnUNetPlans"
    folds: tuple[int, ...] = (0,)
    seeds: tuple[int, ...] = (0,)
    training: dict[str, Any] = field(default_factory=dict)
    hyperparameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    test_images: str | None = None
    test_labels: str | None = None
    protocol: str | None = None


@dataclass(frozen=True)
class Manifest:
    """One benchmark: its experiments and nnU-Net's -device."""

    experiments: tuple[Experiment, ...]
    device: str = DEVICES[0]


def read_manifest(path: str) -> Manifest:
    """A manifest file; JSON is YAML, so that one reader serves both.

    Raises:
        SemiSupervisedError: unreadable, or with unknown keys, missing keys or wrong types, all at once.
    """
    return parse_manifest(read_yaml(path), path, os.path.dirname(os.path.abspath(path)))


def parse_manifest(content: Any, where: str, folder: str) -> Manifest:
    """A manifest from plain Python.

    Args:
        content: see EXAMPLE.
        where: its name in messages.
        folder: relative paths start here.

    Raises:
        SemiSupervisedError: see :func:`read_manifest`.
    """
    if not isinstance(content, dict) or not isinstance(content.get("datasets"), list) or not content["datasets"]:
        raise complain(f'{where} must be a dictionary with a list "datasets". See nnunet_ssl benchmark --help.')
    problems = []
    common = {key: value for key, value in content.items() if key not in ("datasets", "device")}
    device = content.get("device", DEVICES[0])
    if device not in DEVICES:
        problems.append(f"device must be one of {', '.join(DEVICES)}, got {device!r}")
    experiments = []
    for entry in content["datasets"]:
        own = entry if isinstance(entry, dict) else {"dataset": entry}
        merged = {**common, **own}
        found = _problems(merged)
        problems += [f"dataset {own.get('dataset', '(no name)')}: {problem}" for problem in found]
        if not found:
            experiments.append(_experiment(merged, folder))
    if problems:
        raise complain(f"{where} cannot be used:", dict.fromkeys(problems), "See nnunet_ssl benchmark --help.")
    return Manifest(tuple(experiments), device)


def _problems(values: dict[str, Any]) -> list[str]:
    known = [field.name for field in dataclasses.fields(Experiment)]
    problems = [f'unknown key "{key}"; allowed: {", ".join(known)}' for key in values if key not in known]
    if isinstance(values.get("dataset"), bool) or not isinstance(values.get("dataset"), (str, int)):
        problems.append('"dataset" must be a name or an id')
    for key, kind in LISTS.items():
        if key not in values and key not in ("folds", "seeds"):
            problems.append(f'"{key}" is missing')
        items = _as_list(values.get(key, [0]))
        if not items or not all(isinstance(item, kind) and not isinstance(item, bool) for item in items):
            problems.append(f'"{key}" must be a list of {TYPE_NAMES[kind]}, got {values.get(key)!r}')
        elif kind is int and min(items) < 0:
            problems.append(f'"{key}" must not be negative, got {values[key]!r}')
    problems += [
        f'"{key}" must be text, got {values[key]!r}'
        for key in TEXTS
        if not isinstance(values.get(key), (str, type(None)))
    ]
    training, hyperparameters = values.get("training", {}), values.get("hyperparameters", {})
    if not isinstance(training, dict):
        problems.append('"training" must be a dictionary {setting: value}')
    elif "seed" in training:
        problems.append('the seed belongs under "seeds", not under "training"')
    if not isinstance(hyperparameters, dict) or not all(isinstance(own, dict) for own in hyperparameters.values()):
        problems.append('"hyperparameters" must be a dictionary {trainer: {setting: value}}')
    if (values.get("test_images") is None) != (values.get("test_labels") is None):
        problems.append("a test set needs both test_images and test_labels")
    return problems


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _experiment(values: dict[str, Any], folder: str) -> Experiment:
    content = {key: value for key, value in values.items() if value is not None}
    content["dataset"] = str(content["dataset"])
    for key in LISTS:
        if key in content:
            content[key] = tuple(dict.fromkeys(_as_list(content[key])))
    for key in ("test_images", "test_labels"):
        if key in content:
            content[key] = os.path.abspath(os.path.join(folder, os.path.expanduser(content[key])))
    return Experiment(**content)


def to_json(manifest: Manifest) -> dict[str, Any]:
    """What :func:`parse_manifest` reads again."""
    experiments = [{k: v for k, v in dataclasses.asdict(e).items() if v is not None} for e in manifest.experiments]
    plain: dict[str, Any] = json.loads(json.dumps({"device": manifest.device, "datasets": experiments}))
    return plain
