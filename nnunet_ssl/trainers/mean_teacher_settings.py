"""Hyper-parameters of Mean Teacher (NeurIPS 2017), with what UA-MT or SSL4MIS train with."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_ssl.trainers.cutmix_settings import CutMixHyperparameters
from nnunet_ssl.training.settings import other_default, setting


@dataclass(frozen=True)
class MeanTeacherHyperparameters(CutMixHyperparameters):
    cutmix_probability: float = other_default(
        CutMixHyperparameters, "cutmix_probability", 0.0, source="none; 1, French et al. (BMVC 2020)"
    )
    consistency_weight: float = setting(
        0.1, "weight of the consistency term at the end of its ramp", symbol="w", source="0.1, SSL4MIS", low=0.0
    )
    rampup_fraction: float = setting(
        1.0,
        "fraction of training over which the weight rises",
        symbol="R",
        source="1, the full length, SSL4MIS and UA-MT",
        low=1e-6,
        high=1.0,
    )
    ema_decay: float = setting(
        0.99,
        "limit of the teacher's decay, min(1 - 1 / (t + 1), limit)",
        symbol="a",
        source="0.99, UA-MT",
        low=0.0,
        high=1.0,
    )
    noise_std: float = setting(
        0.1,
        "standard deviation of the teacher's input noise, in normalised intensities",
        symbol=r"\sigma",
        source="0.1, UA-MT",
        low=0.0,
    )
    noise_clip: float = setting(0.2, "limit of the absolute noise", symbol="c", source="0.2, UA-MT", low=0.0)
    student_view: str = setting(
        "weak",
        "what the student sees of the unlabelled patches: geometry alone, or photometric changes too",
        source="weak, UA-MT",
        choices=("weak", "strong"),
    )
    predict_with: str = setting(
        "student", "the network that is validated and exported", source="student", choices=("student", "teacher")
    )
