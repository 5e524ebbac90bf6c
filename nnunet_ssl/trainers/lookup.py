"""The one look-up for every trainer that a command may be given: ours, and those in nnUNet_extTrainer."""

from __future__ import annotations

from difflib import get_close_matches

from nnunet_ssl.data.external_trainers import search_trainer
from nnunet_ssl.errors import SemiSupervisedError, complain
from nnunet_ssl.trainers import CONTROL, TRAINERS, find_trainer
from nnunet_ssl.training.configured import nnUNetTrainerConfigured
from nnunet_ssl.training.settings import settings_name

LIST = "nnunet_ssl methods"


def find_any_trainer(name: str) -> type[nnUNetTrainerConfigured]:
    """The trainer of that name that reads splits and settings.

    Raises:
        SemiSupervisedError: there is none, or it is one that does not know what a split is.
    """
    if settings_name(name) in TRAINERS:
        return find_trainer(name)
    try:
        found = search_trainer(name)
    except SemiSupervisedError as error:
        near = nearest(name)
        meant = f"; did you mean {near}?" if near else "."
        raise complain(f'unknown trainer "{name}": {error}{meant}', remedy=f"Run: {LIST}") from error
    if not issubclass(found, nnUNetTrainerConfigured):
        problem = f"it does not read splits and settings and would train on every label; use {CONTROL} as the control"
        raise complain(f'trainer "{name}": {problem}')
    return found


def nearest(name: str) -> str | None:
    """The trainer of this package whose name is most like this one, in the length asked for; None: none is like it."""
    base = settings_name(name)
    spelt = {_own_part(each): each for each in TRAINERS}
    found = get_close_matches(_own_part(base), [*spelt], n=1, cutoff=0.75)
    return spelt[found[0]] + name.removeprefix(base) if found else None


def _own_part(name: str) -> str:
    """Without what all names begin with, which would make every one like every other."""
    return name.lower().removeprefix("nnunettrainer")
