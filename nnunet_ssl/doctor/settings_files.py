"""Splits, and the plans files that carry settings for semi-supervised training."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

from nnunet_ssl.data.fold_rules import fold_problems, fold_remedy
from nnunet_ssl.data.folders import dataset_id, load_plans, read_plans
from nnunet_ssl.data.nnunet_folds import nnunet_folds
from nnunet_ssl.data.outdated import outdated_copy
from nnunet_ssl.data.split_folds import NNUNET_FOLDS, NNUNET_NUMBER_OF_FOLDS
from nnunet_ssl.data.split_requests import splits_command
from nnunet_ssl.data.splits import SPLITS_FILE, Split, Splits, find_split, read_splits, splits_path
from nnunet_ssl.doctor.report import NOTE, OK, WRONG, Finding, from_error
from nnunet_ssl.errors import SemiSupervisedError, complain
from nnunet_ssl.planning.plans_copy import make_plans_copy
from nnunet_ssl.trainers import TRAINERS, find_trainer
from nnunet_ssl.training.settings import BLOCK, parse_settings


def split_findings(base: str, known_cases: Collection[str]) -> tuple[list[Finding], Splits | None]:
    """nnU-Net's folds and our splits; the splits too, None where there are none or the file is damaged.

    Args:
        base: nnUNet_preprocessed/DatasetXXX_Name.
        known_cases: preprocessed labelled cases; none: the splits are not compared with them.
    """
    findings = [_nnunet_folds(base, known_cases)]
    dataset = dataset_id(base)
    if not os.path.isfile(splits_path(base)):
        text = "does not exist, every training label is used"
        few = len(known_cases) < NNUNET_NUMBER_OF_FOLDS and not os.path.isfile(os.path.join(base, NNUNET_FOLDS))
        command = f"{splits_command(dataset)}{' --folds' if few else ''}   (to withhold labels; optional)"
        return [*findings, Finding(NOTE, SPLITS_FILE, text, command if len(known_cases) != 1 else "")], None
    try:
        splits = read_splits(base)
    except SemiSupervisedError as error:
        return [*findings, from_error(SPLITS_FILE, error)], None
    groups = f", cases grouped by {len(set(splits.groups.values()))} subjects" if splits.groups else ""
    findings.append(Finding(OK, SPLITS_FILE, f"{len(splits.splits)} splits, hash intact{groups}"))
    for name, split in splits.splits.items():
        findings.append(_split(dataset, name, split, splits, known_cases or None))
    return findings, splits


def _nnunet_folds(base: str, known_cases: Collection[str]) -> Finding:
    path = os.path.join(base, NNUNET_FOLDS)
    there = os.path.isfile(path)
    if not known_cases:
        return Finding(NOTE, NNUNET_FOLDS, "not checked, no labelled case is preprocessed")
    try:
        folds = nnunet_folds(base, sorted(known_cases))
    except SemiSupervisedError as error:
        if not there:
            return from_error(NNUNET_FOLDS, error)
        few = len(known_cases) < NNUNET_NUMBER_OF_FOLDS
        maker = f"nnunet_ssl splits -d {dataset_id(base)} --folds" if few else "nnU-Net"
        remedy = f"correct {path}, or delete it before the first training run: {maker} makes it again"
        return Finding(WRONG, NNUNET_FOLDS, error.finding, remedy)
    if not there:
        return Finding(
            NOTE, NNUNET_FOLDS, f"does not exist yet, nnU-Net makes {len(folds)} folds when it first needs them"
        )
    return Finding(OK, NNUNET_FOLDS, f"{len(folds)} folds")


def _split(dataset: int, name: str, split: Split, splits: Splits, known_cases: Collection[str] | None) -> Finding:
    problems = [
        f"fold {index}: {problem}"
        for index, fold in enumerate(split.folds)
        for problem in fold_problems(fold, splits.groups, known_cases)
    ]
    if problems:
        return Finding(WRONG, f"split {name}", "\n".join(problems), fold_remedy(problems, dataset, [name]))
    parts = {
        "labelled": [len(fold.labeled) for fold in split.folds],
        "withheld": [len(fold.unlabeled) for fold in split.folds],
        "validation": [len(fold.val) for fold in split.folds],
    }
    counts = "; ".join(f"{part} {' '.join(map(str, numbers))}" for part, numbers in parts.items())
    return Finding(OK, f"split {name}", f"per fold: {counts}")


def plans_findings(base: str, splits: Splits | None, dataset_json: dict[str, Any] | None) -> list[Finding]:
    """Every plans file with a settings block, and whether trainers would accept it.

    ``dataset_json``: None where it cannot be read; then nothing is said of copies that are older than their source.
    """
    findings = []
    for file in sorted(os.listdir(base)):
        if file.endswith(".json"):
            try:
                plans = load_plans(base, file[:-5])
            except SemiSupervisedError as error:
                if BLOCK in (
                    read_plans(os.path.join(base, file)) or {}
                ):  # else another JSON file, or plans that are not ours
                    findings.append(Finding(WRONG, file[:-5], str(error), "for new plans: nnunet_ssl plans --help"))
                continue
            if BLOCK in plans:
                findings.append(_block(base, file[:-5], plans, splits, dataset_json))
    if findings:
        return findings
    command = f"nnunet_ssl plans -d {dataset_id(base)} --help"
    return [Finding(NOTE, "settings", "no plans file carries settings, the defaults apply", f"{command}   (optional)")]


def _block(
    base: str, name: str, plans: dict[str, Any], splits: Splits | None, dataset_json: dict[str, Any] | None
) -> Finding:
    try:
        _check_block(base, name, plans, splits)
    except SemiSupervisedError as error:
        remedy = f"correct it in {os.path.join(base, name + '.json')}, or write another: nnunet_ssl plans --help"
        return from_error(name, error, f"{error.remedy}\nor {remedy}" if error.remedy else remedy)
    outdated = outdated_copy(base, plans, dataset_json) if dataset_json is not None else None
    if outdated is not None:
        return Finding(WRONG, name, outdated.text, "\n".join(outdated.commands))
    block = plans[BLOCK]
    values = {"training": block.get("training", {}), **block.get("hyperparameters", {})}
    lines = [f"{owner}: " + ", ".join(f"{k} = {v}" for k, v in own.items()) for owner, own in values.items() if own]
    return Finding(OK, name, "\n".join([f"split {block.get('split') or 'none, every label is used'}", *lines]))


def _check_block(base: str, name: str, plans: dict[str, Any], splits: Splits | None) -> None:
    """Raise SemiSupervisedError as training would."""
    make_plans_copy(plans, name, None, {}, {})  # says everything that is wrong with the block, all trainers at once
    for trainer in TRAINERS:
        trainer_class: Any = find_trainer(trainer)
        split = parse_settings(plans, trainer, trainer_class.Hyperparameters).split
    if split is not None and splits is None:
        raise complain(
            f'names split "{split}", but {SPLITS_FILE} is missing or damaged',
            remedy=f"restore it, or without it: {splits_command(dataset_id(base), [split])}",
        )
    if split is not None and splits is not None:
        find_split(splits, split, splits_path(base))
