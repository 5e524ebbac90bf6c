"""Everything that a benchmark needs from a dataset, looked at before any work; every fault is put on one list."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from nnunetv2.paths import nnUNet_results
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ssl.data.dataset_json import read_dataset_json
from nnunet_ssl.data.fold_rules import fold_problems, fold_remedy
from nnunet_ssl.data.folders import dataset_id, existing_part, load_plans, preprocessed_base
from nnunet_ssl.data.image_folder import list_images
from nnunet_ssl.data.nnunet_folds import nnunet_folds
from nnunet_ssl.data.split_folds import fold_number_problem
from nnunet_ssl.data.split_requests import splits_command
from nnunet_ssl.data.splits import SPLITS_FILE, Splits, read_splits, splits_path
from nnunet_ssl.data.unlabeled_store import unlabeled_folder, unlabeled_identifiers
from nnunet_ssl.doctor.dataset import UNLABELED, Dataset, data_findings, labeled_ids
from nnunet_ssl.doctor.report import WRONG
from nnunet_ssl.errors import SemiSupervisedError, one_line, some
from nnunet_ssl.evaluation.benchmark.manifest import Experiment
from nnunet_ssl.trainers.lookup import find_any_trainer
from nnunet_ssl.training.base import nnUNetTrainerSemiSupervised

REFERENCES = "gt_segmentations"  # nnU-Net's folder of the labels as they were given, beside the plans


@dataclass
class Examined:
    """One experiment's dataset, and what is wrong with it.

    Attributes:
        base: nnUNet_preprocessed/DatasetXXX_Name; empty where there is none.
        plans, dataset_json, splits: contents; empty or None where they cannot be read.
        labeled: configuration -> preprocessed labelled cases.
        trainers: name -> class, of those that were found.
        problems: one line each.
    """

    base: str = ""
    plans: dict[str, Any] = field(default_factory=dict)
    dataset_json: dict[str, Any] = field(default_factory=dict)
    splits: Splits | None = None
    labeled: dict[str, list[str]] = field(default_factory=dict)
    trainers: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return os.path.basename(self.base)


def examine(experiment: Experiment, unlabeled: bool = True) -> Examined:
    """Look at dataset, plans, configurations, preprocessed data, trainers, splits, folds and test set.

    Args:
        experiment: with or without splits.
        unlabeled: whether images without label have to be preprocessed, too.
    """
    found = Examined()
    for trainer in experiment.trainers:
        try:
            found.trainers[trainer] = find_any_trainer(trainer)
        except SemiSupervisedError as error:
            found.problems.append(one_line(error))
    try:
        found.base = preprocessed_base(experiment.dataset)
        found.plans = load_plans(found.base, experiment.plans)
        found.dataset_json = read_dataset_json(os.path.join(found.base, "dataset.json"))
    except SemiSupervisedError as error:
        found.problems.append(one_line(error))
        return found
    _check_data(experiment, found, unlabeled)
    if experiment.splits:
        _check_splits(experiment, found)
    if experiment.test_images is not None and experiment.test_labels is not None:
        _check_test_set(experiment.test_images, experiment.test_labels, found)
    return found


def entries(error: Exception) -> list[str]:
    """The single faults that one of our errors lists."""
    found = [line.strip().removeprefix("- ") for line in str(error).splitlines() if line.startswith("  - ")]
    return found or [one_line(error)]


def _check_data(experiment: Experiment, found: Examined, unlabeled: bool) -> None:
    """The preprocessed data, as `nnunet_ssl doctor` looks at them."""
    dataset = Dataset(found.base, experiment.plans, found.plans, found.dataset_json)
    try:
        found.labeled = labeled_ids(dataset)
        findings = data_findings(dataset, found.labeled, experiment.configurations)
    except SemiSupervisedError as error:
        found.problems.append(f"{found.name}: {one_line(error)}")
        return
    for finding in findings:
        if finding.mark == WRONG and (unlabeled or not finding.item.endswith(UNLABELED)):
            remedy = f" -> {'; then '.join(finding.remedy.splitlines())}" if finding.remedy else ""
            found.problems.append(f"{found.name}, {finding.item}: {one_line(Exception(finding.text))}{remedy}")


def _check_splits(experiment: Experiment, found: Examined) -> None:
    path = splits_path(found.base)
    try:
        found.splits = read_splits(found.base, experiment.splits)
    except SemiSupervisedError as error:
        if os.path.isfile(path):
            found.problems.append(one_line(error))
        else:
            command = splits_command(dataset_id(found.base), experiment.splits)
            found.problems.append(f"{found.name}: there is no {SPLITS_FILE} yet -> {command}")
            _check_nnunet_folds(experiment, found)
        return
    if missing := [name for name in experiment.splits if name not in found.splits.splits]:
        available = ", ".join(found.splits.splits) or "none"
        command = splits_command(dataset_id(found.base), missing)
        found.problems.append(f"{path} has no split {', '.join(missing)} (it has: {available}) -> {command}")
    cases = _labeled(experiment, found)
    for name in experiment.splits:
        split = found.splits.splits.get(name)
        for fold in experiment.folds if split is not None else ():
            assert split is not None
            if absent := fold_number_problem(fold, len(split.folds)):
                found.problems.append(f'{found.name}: split "{name}" has {absent}')
                continue
            problems = fold_problems(split.folds[fold], found.splits.groups, cases or None)
            if problems:
                remedy = one_line(Exception(fold_remedy(problems, dataset_id(found.base), [name])))
                found.problems.append(f'{found.name}: fold {fold} of split "{name}": {"; ".join(problems)} -> {remedy}')
            if not split.folds[fold].unlabeled:
                _check_pool(experiment, name, fold, found)
            _check_validation_cases(experiment, split.folds[fold].val, found)


def _labeled(experiment: Experiment, found: Examined) -> set[str]:
    return {case for configuration in experiment.configurations for case in found.labeled.get(configuration, [])}


def _check_nnunet_folds(experiment: Experiment, found: Examined) -> None:
    """Whether the splits that are still to be made have folds to be made from."""
    try:
        if cases := _labeled(experiment, found):
            nnunet_folds(found.base, sorted(cases))
    except SemiSupervisedError as error:
        found.problems.append(f"{found.name}: {one_line(error)}")


def _check_pool(experiment: Experiment, split: str, fold: int, found: Examined) -> None:
    """A fold that withholds no label leaves semi-supervised trainers with the images of `nnunet_ssl preprocess`."""
    manager = PlansManager(found.plans)
    for configuration in [c for c in experiment.configurations if c in found.labeled]:
        data = os.path.join(found.base, manager.get_configuration(configuration).data_identifier)
        if not unlabeled_identifiers(unlabeled_folder(data)):
            found.problems += [
                f'{found.name}: fold {fold} of split "{split}" withholds no label and {configuration} has no images '
                f"without labels, so {name} has nothing to learn from"
                for name, trainer in found.trainers.items()
                if issubclass(trainer, nnUNetTrainerSemiSupervised) and trainer.uses_unlabeled
            ]


def _check_validation_cases(experiment: Experiment, cases: list[str], found: Examined) -> None:
    folder, ending = os.path.join(found.base, REFERENCES), found.dataset_json["file_ending"]
    missing = [case for case in cases if not os.path.isfile(os.path.join(folder, case + ending))]
    if missing:
        dataset = Dataset(found.base, experiment.plans, found.plans, found.dataset_json)
        command = dataset.command("nnUNetv2_preprocess", " ".join(experiment.configurations))
        found.problems.append(f"{folder} lacks the labels of {some(missing)} -> {command}")


def _check_test_set(images: str, labels: str, found: Examined) -> None:
    ending = found.dataset_json["file_ending"]
    for folder in (images, labels):
        if not os.path.isdir(folder):
            found.problems.append(f"test set: {folder} is not a folder")
    if not os.path.isdir(images) or not os.path.isdir(labels):
        return
    try:
        content = list_images(images, ending)
    except SemiSupervisedError:
        found.problems.append(f"test set: {images} holds no image that ends in {ending}")
        return
    found.problems += [f"test set, {images}: {problem}" for problem in content.problems]
    labelled = {name.removesuffix(ending) for name in os.listdir(labels) if name.endswith(ending)}
    lacking = ((labels, "label", set(content.cases) - labelled), (images, "image", labelled - set(content.cases)))
    found.problems += [
        f"test set: {folder} has no {what} for {some(cases)}" for folder, what, cases in lacking if cases
    ]


def check_folders(output: str) -> list[str]:
    """Problems with the folders that will be written to."""
    problems = []
    results = nnUNet_results.get()
    if not results:
        problems.append("the environment variable nnUNet_results is not set -> export nnUNet_results=/path/to/results")
    for what, folder in (("nnUNet_results", results), ("the output folder (-o)", output)):
        if folder and (reason := not_writable(folder)):
            problems.append(f"{what}: {folder} {reason}")
    return problems


def not_writable(folder: str) -> str:
    """Why nothing can be written to a folder that may not exist yet; empty if it can."""
    existing = existing_part(folder)
    if not os.path.isdir(existing):
        return f"cannot be made, because {existing} is a file"
    return "" if os.access(existing, os.W_OK | os.X_OK) else f"cannot be written to ({existing})"
