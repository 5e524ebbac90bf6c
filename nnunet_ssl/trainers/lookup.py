"""The one look-up for every trainer that a command may be given: ours, and those in nnUNet_extTrainer."""

from __future__ import annotations

from nnunet_ssl.data.external_trainers import search_trainer
from nnunet_ssl.errors import SemiSupervisedError, complain
from nnunet_ssl.trainers import CONTROL, TRAINERS, find_trainer
from nnunet_ssl.training.configured import nnUNetTrainerConfigured
from nnunet_ssl.training.settings import settings_name


def find_any_trainer(name: str) -> type[nnUNetTrainerConfigured]:
    """The trainer of that name that reads splits and settings.

    Raises:
        SemiSupervisedError: there is none, or it is one that does not know what a split is. One line.
    """
    if settings_name(name) in TRAINERS:
        return find_trainer(name)
    try:
        found = search_trainer(name)
    except SemiSupervisedError as error:
        ours = f"this package has {', '.join(TRAINERS)}, each also as <trainer>_<N>epochs"
        raise complain(f'unknown trainer "{name}": {error}; {ours}') from error
    if not issubclass(found, nnUNetTrainerConfigured):
        problem = f"it does not read splits and settings and would train on every label; use {CONTROL} as the control"
        raise complain(f'trainer "{name}": {problem}')
    return found
