"""Hyper-parameters of UniMatch (CVPR 2023), with what its code for medical images trains with."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_ssl.losses.pseudo_label import PSEUDO_LOSSES
from nnunet_ssl.trainers.cutmix_settings import CutMixHyperparameters
from nnunet_ssl.training.settings import setting


@dataclass(frozen=True)
class UniMatchHyperparameters(CutMixHyperparameters):
    teacher: str = setting(
        "ema",
        "who labels: the moving average of the network, or the network itself (none)",
        source="none, released code; recommended",
        choices=("ema", "none"),
    )
    ema_decay: float = setting(
        0.99, "limit of the teacher's decay, min(1 - 1 / (t + 1), limit)", symbol="a", source="recommended",
        low=0.0, high=1.0,
    )  # fmt: skip
    threshold: float = setting(
        0.95, "confidence from which a voxel is learnt", symbol=r"\tau", source="0.95, released code", low=0.0, high=1.0
    )
    unsupervised_weight: float = setting(
        1.0, "weight of the pseudo-labels at the end of their ramp", symbol="w", source="1, released code", low=0.0
    )
    warmup_fraction: float = setting(
        0.0, "fraction of training without pseudo-labels", source="0, released code", low=0.0, high=1.0
    )
    rampup_fraction: float = setting(
        0.3,
        "fraction of training over which the weight then rises; 0: at once",
        symbol="R",
        source="0, released code; recommended",
        low=0.0,
        high=1.0,
    )
    strong_views: int = setting(
        2, "strong views of each unlabelled patch", source="2, released code; 1: FixMatch", low=1, high=8
    )
    feature_dropout: float | None = setting(
        0.5,
        "share of the channels dropped between encoder and decoder in the term `features`; null: no such term",
        source="0.5, released code; null: FixMatch",
        low=0.0,
        high=0.9,
    )
    pseudo_loss: str = setting(
        "ce+dice",
        "of the kept voxels: cross-entropy, in which rejected voxels count as 0, Dice, or their sum",
        source="dice, released code; ce: FixMatch; recommended",
        choices=PSEUDO_LOSSES,
    )
    deep_pseudo: bool = setting(False, "pseudo-labels at every resolution of deep supervision, not the finest alone")
    predict_with: str = setting(
        "teacher",
        "the network that is validated and exported; without a teacher the network",
        source="the network, released code; recommended",
        choices=("teacher", "student"),
    )
