"""Hyper-parameters of UniMatch (CVPR 2023), with what its code for medical images trains with."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nnunet_ssl.data.mixing import CutMix
from nnunet_ssl.errors import complain
from nnunet_ssl.losses.pseudo_label import PSEUDO_LOSSES
from nnunet_ssl.training.settings import setting
from nnunet_ssl.training.streams import SemiSupervisedHyperparameters


@dataclass(frozen=True)
class UniMatchHyperparameters(SemiSupervisedHyperparameters):
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
    cutmix_probability: float = setting(
        1.0,
        "of a strong view to get a box from another unlabelled patch of the step; 0: no mixing",
        source="0.5, released code; recommended",
        low=0.0,
        high=1.0,
    )
    cutmix_smallest: float = setting(
        0.3, "share of the patch in the smallest box", source="0.02, released code; recommended", low=0.001, high=1.0
    )
    cutmix_largest: float = setting(
        0.6, "share of the patch in the largest box", source="0.4, released code; recommended", low=0.001, high=1.0
    )
    cutmix_aspect: float = setting(
        3.33, "largest ratio of a box's edges, relative to the patch", source="1 / 0.3, released code", low=1.0
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

    def cutmix(self, generator: torch.Generator) -> CutMix:
        """What mixes strong views.

        Raises:
            SemiSupervisedError: the smallest box is larger than the largest one.
        """
        if self.cutmix_smallest > self.cutmix_largest:
            raise complain(
                f"cutmix_smallest {self.cutmix_smallest} is larger than cutmix_largest {self.cutmix_largest}.",
                remedy="Choose shares of the patch in rising order.",
            )
        share = (self.cutmix_smallest, self.cutmix_largest)
        return CutMix(self.cutmix_probability, share, self.cutmix_aspect, generator)
