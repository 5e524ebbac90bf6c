"""Hyper-parameters of LDC (Zheng et al., arXiv:2409.07793), with what the paper or its released code says."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_ssl.losses.lagrangian import DICE_FORMS
from nnunet_ssl.training.base import SemiSupervisedHyperparameters
from nnunet_ssl.training.settings import setting

RELATIVE, PLAIN = ASCENTS = ("relative", "plain")


@dataclass(frozen=True)
class LDCHyperparameters(SemiSupervisedHyperparameters):
    supervised_weight: float = setting(
        0.2,
        "lambda_sup, of squared error and signed distances",
        symbol=r"\lambda_s",
        source="0.2, released code",
        low=0.0,
    )
    contrast_weight: float = setting(
        0.1,
        "beta, weight of the contrast of slices at the end of its ramp; 0: no projection",
        symbol=r"\beta",
        source="1 to 0.2 in the released code; recommended",
        low=0.0,
    )
    constrained_weight: float = setting(
        1.0,
        "gamma, of the constrained consistency",
        symbol=r"\gamma",
        source="recommended: released mix 0.3 : 0.5 : 0.2",
        low=0.0,
    )
    unlabeled_weight: float = setting(
        0.1,
        "of its unlabelled part, times gamma, at the end of the ramp",
        symbol=r"\gamma_U",
        source="recommended",
        low=0.0,
    )
    alpha: float = setting(
        0.3, "weight of the cross-entropy in it", symbol=r"\alpha", source="0.3, released code", low=0.0
    )
    class_weights: str = setting(
        "auto",
        "of the Dice; auto: the paper's for two classes, the larger for the rarer one, otherwise uniform",
        symbol="w_c",
        source="0.314 and 0.685, Eq. 2",
        choices=("auto", "uniform", "frequency"),
    )
    dice_form: str = setting(
        "summed",
        "sums before the ratio, or the ratio of each voxel",
        source="summed, released code",
        choices=DICE_FORMS,
    )
    warmup_fraction: float = setting(
        0.02,
        "T_w, fraction of training without unlabelled terms",
        symbol="T_w",
        source="recommended",
        low=0.0,
        high=1.0,
    )
    rampup_fraction: float = setting(
        0.3, "T_r, fraction of training over which they rise", symbol="T_r", source="recommended", low=1e-6, high=1.0
    )
    confidence_threshold: float = setting(
        0.0, "probability above which the teacher's label counts", source="recommended", low=0.0, high=1.0
    )
    multiplier_step: float = setting(
        0.01,
        "tau, step of the volume multipliers; 0: frozen at 0",
        symbol=r"\tau_\lambda",
        source="0.01, released code",
        low=0.0,
    )
    ascent: str = setting(
        "relative",
        "of volume multipliers; relative: behind the warm-up, by (m - s) / max(m, s, 0.001) times the weight of the "
        "term and its ramp, on unlabelled patches with the teacher's soft volume; plain: from the first step on, by "
        "m - s, with the volume of its hard labels",
        source="plain, Eq. 3 and released code; recommended",
        choices=ASCENTS,
    )
    multiplier_limit: float = setting(
        0.05, "largest absolute volume multiplier", symbol=r"\lambda_{max}", source="recommended", low=0.0
    )
    penalty: float = setting(0.0, "rho of the augmented Lagrangian", symbol=r"\rho", source="recommended", low=0.0)
    reset_each_epoch: bool = setting(False, "multipliers start at 0 in every epoch", source="on in the released code")
    value_margin: float = setting(
        0.0,
        "probabilities are kept between it and 1 minus it; 0: no constraint",
        source="bounds are symbols, Eq. 3",
        low=0.0,
        high=0.4,
    )
    norm_budget: float = setting(
        2.0,
        "limit of the squared norm of the weights, as a multiple of its start; 0: no constraint",
        source="symbol C, Eq. 3",
        low=0.0,
    )
    temperature: float = setting(0.07, "tau of the contrast", source="0.07, released code", low=0.01, high=10.0)
    slices: int = setting(8, "slices per patch that are contrasted (3D)", symbol="n_s", source="recommended", low=1)
    slice_distance: int = setting(
        2, "slices of a patch this close or closer are no negatives of each other", source="recommended", low=0
    )
    pooled_size: int = setting(16, "side to which a slice is averaged", source="recommended", low=1)
    projection_hidden: int = setting(256, "width of the projection", source="recommended", low=1)
    projection_size: int = setting(128, "length of the projection", source="recommended", low=2)
    ema_decay: float = setting(
        0.99,
        "limit of the teacher's decay, min(1 - 1 / (t + 1), limit)",
        symbol="a",
        source="recommended",
        low=0.0,
        high=1.0,
    )
    predict_with: str = setting(
        "student", "the network that is validated and exported", source="recommended", choices=("student", "teacher")
    )
