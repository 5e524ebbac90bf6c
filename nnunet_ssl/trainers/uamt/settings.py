"""Hyper-parameters of UA-MT (MICCAI 2019), with what its code and SSL4MIS train with."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_ssl.trainers.mean_teacher_settings import MeanTeacherHyperparameters
from nnunet_ssl.training.settings import setting


@dataclass(frozen=True)
class UAMTHyperparameters(MeanTeacherHyperparameters):
    passes: int = setting(
        8,
        "passes of the teacher from which its uncertainty is estimated; 4 halve their cost",
        symbol="T",
        source="8, released code",
        low=1,
        high=64,
    )
    teacher_dropout: float = setting(
        0.5,
        "of a channel to be dropped in these passes, at the bottleneck and before the last layer; 0: noise alone",
        symbol="q",
        source="0.5, the released network's own",
        low=0.0,
        high=0.9,
    )
    threshold_start: float = setting(
        0.75,
        "certain is an entropy below this share of the largest one; it rises to 1",
        symbol=r"\eta",
        source="0.75, released code",
        low=0.0,
        high=1.0,
    )
    literal_ln2: bool = setting(
        False,
        "threshold and mean as for two classes, however many there are",
        source="true, released code and SSL4MIS; recommended",
    )
