"""Hyper-parameters of AD-MT (ECCV 2024), with what its release trains with."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_ssl.losses.pseudo_label import PSEUDO_LOSSES
from nnunet_ssl.training.settings import setting
from nnunet_ssl.training.streams import SemiSupervisedHyperparameters


@dataclass(frozen=True)
class ADMTHyperparameters(SemiSupervisedHyperparameters):
    threshold: float = setting(
        0.9,
        "confidence from which a voxel is learnt",
        symbol=r"\tau",
        source="0.8 (LA), 0.95 (ACDC), released code; recommended",
        low=0.0,
        high=1.0,
    )
    unsupervised_weight: float = setting(
        1.0,
        "weight of the pseudo-labels at the end of their ramp",
        symbol="w",
        source="2 beside half the supervised loss, released code; recommended",
        low=0.0,
    )
    rampup_fraction: float = setting(
        0.4,
        "fraction of training over which the weight rises; 0: at once",
        symbol="R",
        source="0.4 (LA), 0.25 (ACDC), released code",
        low=0.0,
        high=1.0,
    )
    ema_decay: float = setting(
        0.99, "limit of the teachers' decay", symbol="a", source="0.99, released code", low=0.0, high=1.0
    )
    copy_fraction: float = setting(
        0.005,
        "fraction of training in which the teachers are copies of the student",
        source="80 of 15 000 (LA), 100 of 30 000 steps (ACDC), released code",
        low=0.0,
        high=1.0,
    )
    period_fraction: float = setting(
        0.5, "longest period of a teacher, of an epoch", source="half an epoch, released configuration", low=0.0
    )
    period_steps: int | None = setting(
        None, "longest period in steps, in place of period_fraction", source="19 (LA), 50 (ACDC), released code", low=1
    )
    entropy_unit: str = setting(
        "bits", "in which the teachers' certainty is compared", source="bits, released code", choices=("bits", "nats")
    )
    pseudo_loss: str = setting(
        "ce+dice",
        "of the kept voxels: cross-entropy, in which rejected voxels count as 0, Dice, or their sum",
        source="ce (LA), dice (ACDC), released code; recommended",
        choices=PSEUDO_LOSSES,
    )
    predict_with: str = setting(
        "student",
        "the network that is validated and exported; the first of the two teachers",
        source="the best of three, released code; recommended",
        choices=("student", "teacher"),
    )
