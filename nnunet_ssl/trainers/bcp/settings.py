"""Hyper-parameters of BCP (CVPR 2023), with what its release trains with."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_ssl.training.settings import setting
from nnunet_ssl.training.streams import SemiSupervisedHyperparameters


@dataclass(frozen=True)
class BCPHyperparameters(SemiSupervisedHyperparameters):
    unlabeled_weight: float = setting(
        0.5, "weight of pseudo-labelled voxels beside labelled ones", symbol="u", source="0.5, released code", low=0.0
    )
    box_edge: float = setting(
        2 / 3, "edges of the box, relative to the patch", source="2/3, released code", low=0.05, high=1.0
    )
    box_per: str = setting(
        "pair",
        "a box for each pair of patches, or one for all of a step (batch)",
        source="batch, released code; recommended",
        choices=("pair", "batch"),
    )
    pretrain_fraction: float = setting(
        0.1,
        "fraction of training on pairs of labelled patches alone, before the teacher begins",
        source="2 000 of 17 000 steps (LA), 10 000 of 40 000 (ACDC), released code; recommended",
        low=0.0,
        high=0.9,
    )
    ema_decay: float = setting(0.99, "the teacher's decay", symbol="a", source="0.99, released code", low=0.0, high=1.0)
    largest_component: str = setting(
        "auto",
        "pseudo-labels keep the largest component of each class; auto: of classes that are one piece in labelled cases",
        source="on, released code; recommended",
        choices=("auto", "on", "off"),
    )
    mix: bool = setting(True, "off: patches as they are, an ablation", source="on")
    sup_unmixed: bool = setting(
        False, "nnU-Net's loss of the labelled patches as they are, too", source="off, released code"
    )
    student_view: str = setting(
        "weak",
        "what the student sees of the unlabelled patches: geometry alone, or photometric changes too",
        source="weak, released code",
        choices=("weak", "strong"),
    )
    predict_with: str = setting(
        "student",
        "the network that is validated and exported",
        source="student, released code",
        choices=("student", "teacher"),
    )
