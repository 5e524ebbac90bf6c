"""A 2D plan whose steps take moments, and every trainer with its settings for it."""

from __future__ import annotations

from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ssl.external import nnunet_ssl_trainers
from tests.tiny import Tiny, plans_of
from tests.trainers.registered import small

STOCK = "nnUNetTrainer"
TINY = Tiny(patch_2d=(48, 32), features=(8, 8, 16))
DATASET_JSON = {
    "channel_names": {"0": "mr0"},
    "labels": TINY.labels,
    "numTraining": TINY.labeled,
    "file_ending": ".nii.gz",
}


def trainer_class(name: str) -> type:
    """nnU-Net's own trainer or one of this package."""
    return nnUNetTrainer if name == STOCK else getattr(nnunet_ssl_trainers, name)


def small_plan(name: str, **hyperparameters: Any) -> dict[str, Any]:
    """Plans with the settings that keep this trainer small, and these."""
    own = {} if name == STOCK else {name: small(name) | hyperparameters}
    return plans_of(TINY) | {"nnunet_ssl": {"hyperparameters": own}}
