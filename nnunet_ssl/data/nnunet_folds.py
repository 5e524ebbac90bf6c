"""splits_final.json: the folds of training runs whose plans name no split. Checked before training, written on demand.

nnU-Net makes five folds when it first needs them, which takes five labelled cases.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ssl.data.folders import dataset_id, write_whole
from nnunet_ssl.data.split_folds import (
    NNUNET_FOLDS,
    NNUNET_NUMBER_OF_FOLDS,
    TrainVal,
    fold_number_problem,
    make_folds,
    most_folds,
    read_folds,
)
from nnunet_ssl.data.unlabeled_store import unlabeled_identifiers
from nnunet_ssl.errors import SemiSupervisedError, complain


def nnunet_folds(base: str, cases: Sequence[str]) -> list[TrainVal]:
    """The folds that a training without a split gets: those of splits_final.json, or nnU-Net's own five.

    Args:
        base: nnUNet_preprocessed/DatasetXXX_Name.
        cases: preprocessed labelled cases, at least one.

    Raises:
        SemiSupervisedError: a file that cannot be used, see :func:`read_folds`; no file and fewer than five cases.
    """
    path = os.path.join(base, NNUNET_FOLDS)
    if os.path.isfile(path):
        return read_folds(path, cases, {})
    if len(cases) < NNUNET_NUMBER_OF_FOLDS:
        raise _too_few(base, cases)
    return make_folds(cases, {})


def _too_few(base: str, cases: Sequence[str]) -> SemiSupervisedError:
    number, dataset = len(cases), dataset_id(base)
    remedies = [f"Train on {'all of them' if number > 1 else 'it'}, without validation, as fold `all`: "
                f"nnUNetv2_train {dataset} CONFIGURATION all -tr TRAINER"]  # fmt: skip
    if number > 1:
        command = f"nnunet_ssl splits -d {dataset} --folds {number}"
        remedies.append(f"Or write that file, with a fold per case: {command}   (--groups FILE: whole patients)")
    return complain(
        f"{number} labelled case{'s are' if number > 1 else ' is'} too few for nnU-Net's {NNUNET_NUMBER_OF_FOLDS} "
        f"folds, and there is no {os.path.join(base, NNUNET_FOLDS)}.",
        remedy="\n".join(remedies),
    )


def check_fold(plans: Mapping[str, Any], configuration: str, fold: int | str) -> None:
    """Refuse a fold that a training without a split cannot use, before anything is written.

    nnU-Net itself would divide the cases at random where the file has no such fold, whatever subjects they belong to.

    Raises:
        SemiSupervisedError: see :func:`nnunet_folds`; or there are fewer folds.
    """
    manager = PlansManager(dict(plans))
    if fold == "all" or not nnUNet_preprocessed.is_set():
        return
    base = os.path.join(nnUNet_preprocessed, manager.dataset_name)
    cases = unlabeled_identifiers(os.path.join(base, manager.get_configuration(configuration).data_identifier))
    if not cases:  # not preprocessed, which is told when the trainer is initialised
        return
    problem = fold_number_problem(fold, len(nnunet_folds(base, cases)))
    if problem:
        path = os.path.join(base, NNUNET_FOLDS)
        source = path if os.path.isfile(path) else "nnU-Net's own cross-validation"
        raise complain(f"{source} has {problem}", remedy="Train one of these, or all cases as fold `all`.")


def folds_to_write(
    base: str, cases: Sequence[str], groups: Mapping[str, str], number: int, remedy: str
) -> list[TrainVal]:
    """The folds for a new splits_final.json, whole subjects; 0: as many as there can be.

    Raises:
        SemiSupervisedError: too few cases or subjects; or the file is there, with other folds.
    """
    folds = make_folds(cases, groups, number or max(2, most_folds(cases, groups)), remedy)
    path = os.path.join(base, NNUNET_FOLDS)
    if os.path.exists(path) and folds != read_folds(path, cases, groups):
        raise complain(
            f"{path} is there already, with other folds, and is never replaced: models may have been trained with it.",
            remedy="Leave out --folds to use it; if nothing has been trained yet, delete it and repeat the command.\n"
            "Or give --ignore-existing-folds too: then these folds hold for splits_ssl.json alone.",
        )
    return folds


def write_folds(base: str, folds: Sequence[TrainVal]) -> str:
    """Write splits_final.json as nnU-Net does, where there is none. Returns its path."""
    path = os.path.join(base, NNUNET_FOLDS)
    if not os.path.exists(path):
        content = [{"train": fold.train, "val": fold.val} for fold in folds]
        write_whole(path, json.dumps(content, indent=4).encode())
    return path
