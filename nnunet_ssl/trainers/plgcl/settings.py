"""Hyper-parameters of PLGCL (Basak & Yin, CVPR 2023), with what the paper or its released code says."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_ssl.losses.gaussian_contrast import COVARIANCES
from nnunet_ssl.trainers.plgcl.patch_grid import PatchGrid, plan_grid
from nnunet_ssl.trainers.plgcl.patch_sampler import PatchSampler
from nnunet_ssl.trainers.plgcl.patch_sampling import ANCHORS, MIN_SHARE, MIN_VOXELS, SIMILARITIES
from nnunet_ssl.trainers.plgcl.rescale_intensity import fixed_ranges
from nnunet_ssl.training.base import SemiSupervisedHyperparameters
from nnunet_ssl.training.settings import setting


@dataclass(frozen=True)
class PLGCLHyperparameters(SemiSupervisedHyperparameters):
    consistency_weight: float = setting(
        0.25, "beta, weight of the consistency", symbol=r"\beta", source="0.25, Sec. 4.2", low=0.0
    )
    contrast_weight: float = setting(
        0.2,
        "gamma, weight of the contrast after the warm-up; 0: no patch is sampled",
        symbol=r"\gamma",
        source="0.2, Sec. 4.2",
        low=0.0,
    )
    warmup_epochs: int | None = setting(
        None,
        "epochs without contrast; null: 5 % of the training, at least 1",
        source="50, Sec. 3.4; recommended",
        low=0,
    )
    temperature: float = setting(
        0.2, "tau, temperature of the contrast", symbol=r"\tau", source="0.2, Sec. 4.2", low=0.01, high=10.0
    )
    covariance_weight: float = setting(
        4.0,
        "lambda, weight of the covariances at the end of its schedule",
        symbol=r"\lambda_\text{max}",
        source="4, Sec. 4.2",
        low=0.0,
    )
    covariance_schedule: str = setting(
        "linear",
        "lambda rises after the warm-up, or is constant",
        source="constant; JCL's code and recommended: linear",
        choices=("linear", "constant"),
    )
    covariance: str = setting(
        "full", "covariance of a class; none: zero", symbol=r"\Sigma_k", source="full, Eq. 5", choices=COVARIANCES
    )
    negative_keys: float = setting(
        4096.0, "zeta times the number of usable classes", symbol=r"\zeta", source="4096, released code", low=1.0
    )
    class_balanced: bool = setting(False, "mean over classes of their mean over queries", source="off, released code")
    neighbours: int = setting(20, "n, positives per anchor", symbol="n", source="20, Sec. 4.2", low=1)
    similarity: str = setting(
        "entropy",
        "what makes patches of a class alike: entropy, confidence (Avg) or cosine of the attended patches",
        source="entropy, Table 3",
        choices=SIMILARITIES,
    )
    anchor: str = setting(
        "confidence",
        "the anchor is drawn in proportion to Avg (confidence), has the largest (max), or is any (uniform)",
        source="recommended",
        choices=ANCHORS,
    )
    queries: str = setting(
        "all",
        "patches that are contrasted: all that are selected, or the anchor alone",
        source="all, Alg. 1, Eq. 8 and released code; anchor, Sec. 3.1",
        choices=("all", "anchor"),
    )
    presence_voxels: int = setting(
        MIN_VOXELS,
        "voxels of the class that a patch must show; 0, with presence_share 0 too: any patch",
        source="more than 10 pixels of a contour, released code; recommended",
        low=0,
    )
    presence_share: float = setting(
        MIN_SHARE,
        "rho, and of what the patch of the batch with most voxels of the class shows",
        symbol=r"\rho",
        source="recommended",
        low=0.0,
        high=1.0,
    )
    max_classes: int = setting(
        8, "classes sampled per step, drawn at random where more have candidates", source="recommended", low=2
    )
    patch_size: list[int] | None = setting(  # noqa: RUF009 - a field, as the others
        None,
        "voxels of a patch per axis; null: about a quarter of the training patch, as the encoder allows",
        symbol="P",
        source="recommended",
    )
    embed_stage: str = setting(
        "auto",
        "encoder stage whose features are embedded: the deepest that fits (auto), or the last (bottleneck)",
        source="last; recommended",
        choices=("auto", "bottleneck"),
    )
    confidence_source: str = setting(
        "teacher",
        "network whose probabilities attend unlabelled images",
        symbol="C",
        source="student, Sec. 3.1; recommended",
        choices=("teacher", "student"),
    )
    key_encoder: str = setting(
        "teacher",
        "network that embeds the keys; the teacher sees them augmented, the student as they are",
        source="teacher, released code, its augmentation recommended; student, Sec. 3.1",
        choices=("teacher", "student"),
    )
    embedding_size: int = setting(128, "D, length of an embedding", symbol="D", source="128, released code", low=2)
    memory_size: int = setting(4096, "keys kept per class", source="4096, released code", low=1)
    min_keys: int = setting(16, "keys from which on a class takes part", source="recommended", low=2)
    ema_decay: float = setting(
        0.999, "alpha, decay of the teacher", symbol=r"\alpha", source="0.999, Sec. 4.2", low=0.0, high=1.0
    )
    ema_rampup: bool = setting(
        True, "decay min((1 + t) / (10 + t), alpha) instead of alpha", source="constant, Eqs. 9-10; recommended"
    )
    consistency_target: str = setting(
        "soft",
        "the teacher's probabilities (soft) or its classes (hard)",
        source="recommended",
        choices=("soft", "hard"),
    )
    supervised_loss: str = setting(
        "nnunet",
        "nnU-Net's own loss, or its cross-entropy alone (ce)",
        source="ce, Eq. 7; recommended",
        choices=("nnunet", "ce"),
    )
    predict_with: str = setting(
        "student",
        "the network that is validated and exported",
        source="student, released code",
        choices=("student", "teacher"),
    )

    def grid(self, plan: ConfigurationManager, batch: int) -> PatchGrid:
        """The windows of a training patch, for so many images per step.

        Raises:
            NotImplementedError: the plan's network has no stages with strides.
            SemiSupervisedError: no windows fit.
        """
        strides = plan.network_arch_init_kwargs.get("strides")
        if strides is None:
            raise NotImplementedError(
                f"PLGCL does not support {plan.network_arch_class_name}: it embeds patches with the stages of a "
                "U-Net's encoder. Use plans with such a network (PlainConvUNet, ResidualEncoderUNet)."
            )
        return plan_grid(plan.patch_size, strides, batch, self.neighbours, self.patch_size, self.embed_stage)

    def sampler(
        self,
        plans: PlansManager,
        plan: ConfigurationManager,
        labels: LabelManager,
        grid: PatchGrid,
        generator: torch.Generator,
    ) -> PatchSampler:
        """What chooses patches of every class in such windows, with the random numbers of a generator."""
        properties = plans.plans.get("foreground_intensity_properties_per_channel", {})
        return PatchSampler(
            grid, fixed_ranges(plan.normalization_schemes, properties), labels, generator, self.neighbours,
            self.max_classes, self.anchor, self.similarity, self.presence_voxels, self.presence_share,
        )  # fmt: skip
