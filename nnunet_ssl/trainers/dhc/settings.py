"""Hyper-parameters of DHC (MICCAI 2023), with what its code trains with."""

from __future__ import annotations

from dataclasses import dataclass

from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_ssl.trainers.cps.settings import CrossHyperparameters
from nnunet_ssl.training.settings import other_default, setting


@dataclass(frozen=True)
class DHCHyperparameters(CrossHyperparameters):
    cutmix_probability: float = other_default(
        CrossHyperparameters, "cutmix_probability", 0.0, source="0, released code"
    )
    cross_weight: float = other_default(CrossHyperparameters, "cross_weight", 0.1, source="0.1, released code")
    rampup_fraction: float = other_default(CrossHyperparameters, "rampup_fraction", 1.0, source="1, released code")
    cross_on: str = other_default(CrossHyperparameters, "cross_on", "all", source="all, released code")
    predict_with: str = other_default(
        CrossHyperparameters, "predict_with", "first", source="mean of both, released code; recommended"
    )
    weighted_sup: bool = setting(
        True,
        "the supervised terms are weighted by class, too; false: they are nnU-Net's own",
        source="true, released code",
    )
    dist_momentum: float = setting(
        0.99, "of the second network's weights from step to step", symbol=r"\beta", source="0.99, released code",
        low=0.0, high=1.0,
    )  # fmt: skip
    accumulate: int = setting(
        50,
        "steps over which the Dice of the first network's classes is followed",
        symbol="A",
        source="50, released code",
        low=1,
    )
    difficulty_exponent: float = setting(
        0.2, "of unlearnt over learnt", symbol=r"\alpha", source="1/5, released code", low=0.0, high=5.0
    )
    weight_floor: float = setting(
        0.01,
        "least weight of a class, as a share of the largest possible one",
        symbol=r"\phi",
        source="0, released code; recommended",
        low=0.0,
        high=1.0,
    )
    skip_first: bool = setting(
        True,
        "the first Dice of a class is stored alone; false: compared with 1e-8, which dominates for about 300 steps",
        source="false, released code; recommended",
    )
    keep_absent: bool = setting(
        True,
        "classes that neither prediction nor label of a step shows keep their Dice, and a class that is not predicted "
        "counts as one voxel; false: a Dice of 0.5, and no voxel",
        source="false, released code; recommended",
    )

    def check_classes(self, trainer: str, labels: LabelManager) -> None:
        if labels.has_regions:
            raise NotImplementedError(
                f"{trainer} does not support region-based training: its weights are of classes that exclude each "
                "other. Use nnUNetTrainerCPS."
            )
        if labels.num_segmentation_heads < 3:
            raise NotImplementedError(
                f"{trainer} does not support background and one class alone: the rarer of the two would have all the "
                "weight. Use nnUNetTrainerCPS."
            )
