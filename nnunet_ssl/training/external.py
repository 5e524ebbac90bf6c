"""Trainers in folders of other people, which nnU-Net finds through the variable nnUNet_extTrainer."""

from __future__ import annotations

import os
from functools import cache

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_ssl.data.quiet import captured_output, describe_failure
from nnunet_ssl.errors import complain


def search_trainer(name: str) -> type[nnUNetTrainer]:
    """What nnU-Net's own look-up finds, without what it prints; the same class at every call.

    Raises:
        SemiSupervisedError: nothing, or a module of some folder ended the search.
    """
    return _search(name, os.environ.get("nnUNet_extTrainer"))


def is_found(name: str) -> bool:
    """Whether there is such a trainer."""
    try:
        search_trainer(name)
    except RuntimeError:
        return False
    return True


@cache
def _search(name: str, folders: str | None) -> type[nnUNetTrainer]:
    """nnU-Net imports a folder's modules anew at every search, which makes another class of the same name."""
    try:
        with captured_output():
            found: type[nnUNetTrainer] = recursive_find_trainer_class_by_name(name)
        return found
    except (Exception, SystemExit) as error:  # anything may happen in other people's modules
        if isinstance(error, RuntimeError) and str(error).startswith("Could not find"):
            raise complain("nnU-Net does not find it") from error
        reason = describe_failure(error, place=True)
        raise complain(f"nnU-Net does not find it, a module in nnUNet_extTrainer={folders} fails: {reason}") from error
