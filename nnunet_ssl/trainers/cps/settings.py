"""Hyper-parameters of cross pseudo supervision (CVPR 2021), with what SSL4MIS and the DHC repository train with."""

from __future__ import annotations

from dataclasses import dataclass

from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_ssl.trainers.cutmix_settings import CutMixHyperparameters
from nnunet_ssl.training.settings import setting


@dataclass(frozen=True)
class CrossHyperparameters(CutMixHyperparameters):
    """Of every method in which two networks teach each other."""

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
    predict_with: str = setting(
        "first", "the network that is validated and exported", source="first, SSL4MIS", choices=("first", "second")
    )

    def check_classes(self, trainer: str, labels: LabelManager) -> None:
        """Refuse labels that the weights of the classes do not fit, with a NotImplementedError."""


@dataclass(frozen=True)
class CPSHyperparameters(CrossHyperparameters):
    balance: str = setting(
        "none",
        "weights of the classes in the cross term: none, by frequency (crest, simis), or by how sure a class is (cld)",
        source="none, SSL4MIS",
        choices=("none", "crest", "simis", "cld"),
    )

    def check_classes(self, trainer: str, labels: LabelManager) -> None:
        if self.balance != "none" and labels.has_regions:
            raise NotImplementedError(
                f'{trainer}: balance = "{self.balance}" weighs classes that exclude each other and does not support '
                'region-based training. Use balance = "none".'
            )
