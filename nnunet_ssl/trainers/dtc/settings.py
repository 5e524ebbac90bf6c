"""Hyper-parameters of DTC (AAAI 2021) and SASSNet (MICCAI 2020), with what their code trains with."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_ssl.training.settings import setting
from nnunet_ssl.training.streams import SemiSupervisedHyperparameters


@dataclass(frozen=True)
class DTCHyperparameters(SemiSupervisedHyperparameters):
    shape_prior: str = setting(
        "none",
        "what unlabelled patches teach: segmentation and distance to agree (none), or distances that a discriminator "
        "takes for those of labelled patches (adversarial), which is SASSNet",
        source="none, DTC; adversarial, SASSNet",
        choices=("none", "adversarial"),
    )
    distance_weight: float = setting(
        0.3, "weight of the distance on labelled patches", symbol=r"\beta", source="0.3, DTC and SASSNet", low=0.0
    )
    consistency_weight: float = setting(
        1.0, "weight of the consistency at the end of its ramp", symbol="w", source="1, DTC", low=0.0
    )
    adversarial_weight: float = setting(
        0.01,
        "weight of the adversarial term at the end of its ramp",
        symbol="w_a",
        source="0.01 with 16 labelled cases, 0.015 with 8, SASSNet",
        low=0.0,
    )
    rampup_fraction: float = setting(
        1.0, "fraction of training over which the weight rises", symbol="R", source="1, DTC and SASSNet", low=1e-6,
        high=1.0,
    )  # fmt: skip
    steepness: float = setting(
        1500.0, "of the sigmoid that turns a distance into a mask", symbol="k", source="1500, DTC", low=1.0
    )
    detach: str = setting(
        "none",
        "side of the consistency that gets no gradient",
        source="none, DTC",
        choices=("none", "segmentation", "distance"),
    )
    distance_unit: str = setting(
        "voxel", "in which distances are taken before each side is divided by its largest", source="voxel, DTC",
        choices=("voxel", "mm"),
    )  # fmt: skip
