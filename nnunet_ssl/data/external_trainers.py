"""Trainers in folders of other people, which nnU-Net finds through the variable nnUNet_extTrainer."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from nnunet_ssl.data.quiet import captured_output, describe_failure
from nnunet_ssl.errors import SemiSupervisedError, complain

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


def search_trainer(name: str) -> type[nnUNetTrainer]:
    """What nnU-Net's own look-up finds, without what it prints; the same class at every call.

    Raises:
        SemiSupervisedError: nothing, or a module of some folder ended the search.
    """
    return _search(name, os.environ.get("nnUNet_extTrainer"))


def has_settings(name: str) -> bool:
    """Whether there is a trainer of that name with hyper-parameters of its own."""
    try:
        return hasattr(search_trainer(name), "Hyperparameters")
    except SemiSupervisedError:
        return False


@cache
def _search(name: str, folders: str | None) -> type[nnUNetTrainer]:
    """nnU-Net imports a folder's modules anew at every search, which makes another class of the same name."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name  # imports much of nnU-Net

    try:
        with captured_output():
            found: type[nnUNetTrainer] = recursive_find_trainer_class_by_name(name)
        return found
    except (Exception, SystemExit) as error:  # anything may happen in other people's modules
        if isinstance(error, RuntimeError) and str(error).startswith("Could not find"):
            raise complain("nnU-Net does not find it") from error
        reason = describe_failure(error, place=True)
        raise complain(f"nnU-Net does not find it, a module in nnUNet_extTrainer={folders} fails: {reason}") from error
