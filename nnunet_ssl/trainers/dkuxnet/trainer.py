"""DKUXNet: the predictions and query distributions of two views of an image agree, and differ between images.

Source: Wu, Li & Zhang, "Semi-supervised medical image segmentation via query distribution consistency" (ISBI 2024). The
authors published the network, not the semi-supervised method; what the paper leaves open is in docs/methods/dkuxnet.md.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from nnunet_ssl.architectures.dkuxnet import DKUXNetOutput
from nnunet_ssl.losses.info_nce import paired_distance, paired_info_nce, voxelwise_info_nce
from nnunet_ssl.trainers.dkuxnet.settings import DKUXNetHyperparameters
from nnunet_ssl.trainers.dkuxnet.supervised import by_view, nnUNetTrainerDKUXNetSupervised
from nnunet_ssl.training.base import Terms
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.distributed import voxel_mean


class nnUNetTrainerDKUXNet(nnUNetTrainerDKUXNetSupervised):
    """L = L_seg + lambda_qd L_qd + lambda_aux L_aux + lambda r(t) (L_segc + L_qdc).

    The first three on a weak and a strong view of the labelled patches; the contrast (Eq. 4) on those of all patches:
    the partner of a map is that of the other view, its negatives are those of all other patches, labelled or not.
    """

    Hyperparameters: ClassVar[type] = DKUXNetHyperparameters
    hyperparameters: DKUXNetHyperparameters
    card: ClassVar[MethodCard] = MethodCard(
        paper="Wu et al., DKUXNet, ISBI 2024",
        predicts="the network, a 3D UX-Net with queries",
        dimensions="2D, 3D",
        extra_memory="two views of every patch, queries; an estimate is logged",
        extra_time="2.24 (3D), 2.50 (2D) in operations",
    )
    uses_unlabeled: ClassVar[bool] = True

    @classmethod
    def check_supported(cls, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        super().check_supported(plans, configuration, dataset_json)
        hp: DKUXNetHyperparameters = cls.settings_of(plans).hyperparameters
        if hp.contrast == "voxel" and hp.contrast_channels == "foreground":
            raise NotImplementedError(
                f"{cls.__name__}: contrast=voxel needs contrast_channels=all. With a voxel's foreground channels alone "
                "agreeing on background would earn nothing, and foreground would grow."
            )

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.hyperparameters.contrast == "voxel":
            self.print_to_log_file(
                "WARNING: contrast=voxel has the same position in other patches as negatives, most of which rightly "
                "have the same class. Watch predicted_foreground_unlabeled in semi_supervised.csv."
            )

    def set_up(self) -> None:
        self.uses_unlabeled = self.hyperparameters.contrasts  # type: ignore[misc]  # without: no pool is needed
        super().set_up()

    def contrast_weight(self) -> float:
        hp = self.hyperparameters
        if not hp.contrasts:
            return 0.0
        return hp.contrast_weight * self.ramp(hp.rampup_fraction, hp.warmup_fraction)  # lambda r(t)

    def contrast_terms(self, out: DKUXNetOutput, counted: Tensor, labeled: int) -> Terms:
        """lambda r(t) (L_segc + L_qdc); in the warm-up none."""
        hp, terms, weight = self.hyperparameters, Terms(), self.held(self.contrast_weight())
        if weight == 0:
            return terms
        wanted = {"segmentation": hp.segmentation_contrast, "query": hp.query_contrast}
        both = by_view(counted, labeled)
        for name, maps in self.maps(out, labeled, background=hp.contrast_channels == "all").items():
            if wanted[name]:
                contrast = self.contrast(maps, both)
                terms.add(f"{name}_contrast", contrast, weight)
                if hp.contrast == "sample" and len(maps) > 2:
                    alike = math.log(len(maps) - 1)  # of 2B views that are all alike
                    self.monitor.add(f"{name}_contrast_collapse", contrast / alike - 1)
        return terms

    def contrast(self, maps: Tensor, counted: Tensor) -> Tensor:
        """L_nce, Eq. 4.

        Args:
            maps: (2B, C, *P), all weak views and then all strong ones.
            counted: (2B, 1, *P) bool.
        """
        hp = self.hyperparameters
        if hp.detach_weak:
            weak, strong = maps.chunk(2)
            maps = torch.cat([weak.detach(), strong])
        if hp.contrast == "voxel":
            return voxel_mean(voxelwise_info_nce, maps, hp.temperature, mask=counted)
        loss = paired_info_nce if hp.contrast == "sample" else paired_distance
        return loss((maps * counted).flatten(1), hp.temperature)

    @torch.no_grad()
    def observe(self, out: DKUXNetOutput, counted: Tensor, labeled: int) -> None:
        super().observe(out, counted, labeled)
        taught = 2 * labeled
        if len(out.logits) == taught:  # the unlabelled patches stay out of this step
            return
        weak, strong = out.logits[taught:].chunk(2)
        valid = counted[taught:].chunk(2)[0]
        self.observe_pseudo_labels(strong, weak, valid)
        self._observe_foreground("unlabeled", weak, valid)
