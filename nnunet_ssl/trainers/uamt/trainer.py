"""UA-MT: a mean teacher that is followed where several of its noisy passes are certain.

Source: Yu et al., "Uncertainty-aware Self-ensembling Model for Semi-supervised 3D Left Atrium Segmentation" (MICCAI
2019), its code. What is recommended here: docs/methods/uamt.md.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nnunet_ssl.data.batches import UnlabeledBatch
from nnunet_ssl.losses.uncertainty import certain_mse, certainty_threshold, predictive_entropy
from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_ssl.trainers.uamt.pass_dropout import PassDropout
from nnunet_ssl.trainers.uamt.settings import UAMTHyperparameters
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.distributed import voxel_mean
from nnunet_ssl.training.network import check_unet
from nnunet_ssl.training.teacher import TEACHER


class nnUNetTrainerUAMT(nnUNetTrainerMeanTeacher):
    """As Mean Teacher, with the mean over the voxels where u < (eta + (1 - eta) r(progress)) ln K alone.

    u: entropy of the mean of T passes of the teacher, each with noise and dropout of its own.
    """

    Hyperparameters: ClassVar[type] = UAMTHyperparameters
    hyperparameters: UAMTHyperparameters
    card: ClassVar[MethodCard] = MethodCard(
        paper="Yu et al., UA-MT, MICCAI 2019",
        predicts="student (option: teacher)",
        dimensions="2D, 3D",
        extra_memory="one copy of the network",
        extra_time="about 2.5",
    )

    def followed(self, teacher: Tensor, unlabeled: UnlabeledBatch) -> Tensor:
        certain = (self.uncertainty(unlabeled.weak) < self.threshold) & unlabeled.valid
        if self.observing:
            self.monitor.kept(self.targets.decide(teacher), certain, unlabeled.valid)
        return certain

    def consistency(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        divisor = 2.0 if self.hyperparameters.literal_ln2 else None
        options = {"regions": self.targets.has_regions, "divisor": divisor}
        return voxel_mean(certain_mse, student, teacher, mask=mask, **options)

    @torch.no_grad()
    def uncertainty(self, images: Tensor) -> Tensor:
        """u (B_U, 1, *P), in nats."""
        hp, mean = self.hyperparameters, torch.zeros((), device=self.device)
        with nullcontext() if self.dropout is None else self.dropout.on():
            for _ in range(hp.passes):
                logits = self.teacher(self.with_noise(images, hp.noise_std, hp.noise_clip))
                mean = self.targets.probabilities(logits).div_(hp.passes).add_(mean)
        return predictive_entropy(mean, self.targets.has_regions)

    @property
    def threshold(self) -> float:
        """Below it, u is certain."""
        hp = self.hyperparameters
        classes = 2 if hp.literal_ln2 or self.targets.has_regions else self.targets.channels
        return certainty_threshold(self.ramp(1.0), classes, hp.threshold_start)

    # ---- construction

    @classmethod
    def check_supported(cls, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        super().check_supported(plans, configuration, dataset_json)
        if cls.settings_of(plans).hyperparameters.teacher_dropout > 0:
            reason = "it drops features of a U-Net's decoder. Set the hyper-parameter teacher_dropout=0."
            check_unet(cls.__name__, plans, configuration, reason)

    def build_auxiliary(self) -> dict[str, nn.Module]:
        modules, dropped = super().build_auxiliary(), self.hyperparameters.teacher_dropout
        self.dropout = PassDropout(modules[TEACHER], dropped, self.device) if dropped > 0 else None
        return modules
