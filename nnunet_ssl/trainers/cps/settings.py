"""Hyper-parameters of cross pseudo supervision (CVPR 2021), with what SSL4MIS and the DHC repository train with."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_ssl.trainers.cutmix_settings import CutMixHyperparameters
from nnunet_ssl.training.settings import setting


@dataclass(frozen=True)
class CPSHyperparameters(CutMixHyperparameters):
    cross_weight: float = setting(
        0.5,
        "weight of the cross term at the end of its ramp",
        symbol="w",
        source="0.1 beside a halved supervised loss, SSL4MIS; recommended",
        low=0.0,
    )
    rampup_fraction: float = setting(
        0.5,
        "fraction of training over which the weight rises",
        symbol="R",
        source="1, SSL4MIS; recommended",
        low=1e-6,
        high=1.0,
    )
    cross_on: str = setting(
        "unlabeled",
        "patches on which the networks teach each other",
        source="unlabeled, SSL4MIS; all, DHC's code",
        choices=("unlabeled", "all"),
    )
    balance: str = setting(
        "none",
        "weights of the classes in the cross term: none, by frequency (crest, simis), or by how sure a class is (cld)",
        source="none, SSL4MIS",
        choices=("none", "crest", "simis", "cld"),
    )
    predict_with: str = setting(
        "first", "the network that is validated and exported", source="first, SSL4MIS", choices=("first", "second")
    )
