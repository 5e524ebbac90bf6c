"""Hyper-parameters of Dual Networks (Lu et al., 2025), with what the paper or its released code says."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_ssl.architectures.dual_networks import PREDICTORS
from nnunet_ssl.losses.pseudo_label import SCOPES
from nnunet_ssl.training.base import SemiSupervisedHyperparameters
from nnunet_ssl.training.settings import setting


@dataclass(frozen=True)
class DualNetworksHyperparameters(SemiSupervisedHyperparameters):
    consistency_weight: float = setting(
        1.0, "weight of the cosine consistency L_reg", source="1, released code", low=0.0
    )
    uncertainty_weight: float = setting(
        1.0, "weight of the uncertainty-rectified term L_une", source="1, released code", low=0.0
    )
    pseudo_label_weight: float = setting(
        1.0, "weight of the pseudo-label terms L_u at the end of their ramp", source="1, Eq. 1", low=0.0
    )
    contrast_weight: float = setting(
        0.1,
        "weight of the prototype contrast L_c at the end of training",
        symbol=r"\lambda",
        source="0.1, Sec. 3.1",
        low=0.0,
    )
    rampup_fraction: float = setting(
        0.4,
        "fraction of training over which the pseudo-label weight rises; 0: constant",
        source="constant in Eq. 1; recommended",
        low=0.0,
        high=1.0,
    )
    ramp_agreement: bool = setting(
        False, "L_reg and L_une rise along the same ramp, if they unsettle the start", source="constant, released code"
    )
    temperature: float = setting(
        0.5,
        "of the teacher's target, below 1: sharpened",
        symbol="T_p",
        source="0.5, released code, where it has no effect",
        low=0.01,
        high=10.0,
    )
    hard_target: bool = setting(
        False, "target: the teacher's most probable class", source="soft, Eq. 7; hard, released code"
    )
    detach_uncertainty: bool | None = setting(
        None,
        "no gradient through the weight of a voxel, exp(-KL); null: of 8 classes or more, where it would repel the "
        "student from an uncertain teacher",
        source="with gradient, released code",
    )
    percentile: float = setting(
        80.0,
        "percent of each network's voxels, by entropy, that are reliable",
        source="80, Sec. 2",
        low=0.0,
        high=100.0,
    )
    percentile_scope: str = setting(
        "voxels",
        "of what the percentile is taken: of all voxels, or of those predicted as each class, so that none is shut out",
        source="voxels, Sec. 2",
        choices=SCOPES,
    )
    pseudo_label_rule: str = setting(
        "union",
        "who labels: both networks together (union), each its own voxels (own), or each the other's (cross)",
        source="union, released code",
        choices=("union", "own", "cross"),
    )
    contrast_fraction: float = setting(
        0.01,
        "share of a class's uncertain voxels that is drawn, at least one voxel",
        source="0.01, released code",
        low=0.0,
        high=1.0,
    )
    contrast_samples: int = setting(1024, "drawn voxels per class at most", source="recommended", low=1)
    dynamic_roles: bool = setting(
        False,
        "L_c takes the features of the network with the larger labelled Dice loss",
        source="on in the released code; recommended",
    )
    disagreement_weight: float = setting(
        0.0,
        "weight of L_mis, the error where confident foreground differs (released preset)",
        source="0.5, released code only",
        low=0.0,
    )
    disagreement_threshold: float = setting(
        0.6, "probability of confident foreground in L_mis", source="0.6, released code", low=0.0, high=1.0
    )
    channel_dropout: float = setting(
        0.0,
        "dropout of whole channels: last features of both networks, and the teacher's bottleneck",
        source="0.5, released networks; recommended",
        low=0.0,
        high=0.9,
    )
    sequential: bool = setting(False, "activations of one encoder or decoder at a time: less memory, more time")
    predict_with: str = setting(
        "mean", "mean of both networks' probabilities, or one network", source="mean, released code", choices=PREDICTORS
    )

    @property
    def learns_without_labels(self) -> bool:
        """Whether any term sees unlabelled patches."""
        weights = (self.consistency_weight, self.uncertainty_weight, self.pseudo_label_weight, self.contrast_weight)
        return any(weight > 0 for weight in weights)
