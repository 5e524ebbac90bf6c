"""Hyper-parameters of URPC (MICCAI 2021), with what SSL4MIS, its authors' collection, trains with."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_ssl.training.settings import setting
from nnunet_ssl.training.streams import SemiSupervisedHyperparameters


@dataclass(frozen=True)
class URPCHyperparameters(SemiSupervisedHyperparameters):
    consistency_weight: float = setting(
        0.1,
        "weight of the pyramid consistency at the end of its ramp; 1 is worth a try",
        symbol="w",
        source="0.1 beside half the supervised loss, SSL4MIS",
        low=0.0,
    )
    rampup_fraction: float = setting(
        1.0,
        "fraction of training over which the weight rises",
        symbol="R",
        source="1, SSL4MIS",
        low=1e-6,
        high=1.0,
    )
    scales: int = setting(
        4,
        "outputs that agree, the finest first; fewer where the network has fewer that are supervised",
        symbol="S",
        source="4, SSL4MIS",
        low=2,
        high=8,
    )
    perturbation: str = setting(
        "channel",
        "channels of unlabelled patches dropped before the segmentation layers: 0.1, 0.2, 0.3 and 0.5 of them from "
        "fine to coarse, or none",
        source="the same on the decoder's maps themselves, 3D code of SSL4MIS; recommended",
        choices=("channel", "none"),
    )
    detach_mean: bool = setting(False, "no gradient through the mean of the scales", source="false, SSL4MIS")
    full_resolution_supervision: bool = setting(
        False,
        "every output learns the labels at full resolution, all with one weight, in place of deep supervision",
        source="true, SSL4MIS; recommended",
    )
