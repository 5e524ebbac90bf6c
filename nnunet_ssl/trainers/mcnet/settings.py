"""Hyper-parameters of MC-Net (MICCAI 2021) and MC-Net+ (MedIA 2022), with what their code trains with."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_ssl.training.settings import setting
from nnunet_ssl.training.streams import SemiSupervisedHyperparameters


@dataclass(frozen=True)
class MCNetHyperparameters(SemiSupervisedHyperparameters):
    decoders: int = setting(
        3, "decoders in all: 3 make MC-Net+, 2 MC-Net", symbol="n", source="3, MC-Net+; 2, MC-Net", low=2, high=3
    )
    temperature: float = setting(
        0.1, "of the sharpening; 1: none", symbol="T", source="0.1, released code", low=0.01, high=1.0
    )
    consistency_weight: float = setting(
        1.0,
        "weight of the sum over all ordered pairs of decoders at the end of its ramp",
        symbol="w",
        source="1 beside half the supervised loss in 3D, 0.1 in 2D, released code",
        low=0.0,
    )
    rampup_fraction: float = setting(
        0.4,
        "fraction of training over which the weight rises",
        symbol="R",
        source="0.4 in 3D, 1 in 2D, released code",
        low=1e-6,
        high=1.0,
    )
    consistency_on: str = setting(
        "all", "patches on which the decoders shall agree", source="all, released code", choices=("all", "unlabeled")
    )
    detach_target: bool = setting(
        True, "no gradient through the sharpened prediction", source="off, released code; recommended"
    )
    sharpening: str = setting(
        "distribution",
        "of more than two classes: over all classes, or of each channel against its complement; of regions the latter",
        source="channel, released code; recommended",
        choices=("distribution", "channel"),
    )
