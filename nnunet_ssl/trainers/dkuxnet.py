"""DKUXNet: the predictions and query distributions of two views of an image agree, and differ between images.

Source: Wu, Li & Zhang, "Semi-supervised medical image segmentation via query distribution consistency" (ISBI 2024). The
authors published the network, not the semi-supervised method; what the paper leaves open is in docs/methods/dkuxnet.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nnunet_ssl.architectures.dkuxnet import DKUXNetOutput
from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.losses.info_nce import mean_similarities, paired_distance, paired_info_nce, voxelwise_info_nce
from nnunet_ssl.losses.query_distribution import log_query_distribution
from nnunet_ssl.trainers.dkuxnet_supervised import DKUXNetSupervisedHyperparameters, nnUNetTrainerDKUXNetSupervised
from nnunet_ssl.training.base import SemiSupervisedHyperparameters
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.monitored import OBSERVE_EVERY
from nnunet_ssl.training.ramps import sigmoid_rampup
from nnunet_ssl.training.settings import setting


@dataclass(frozen=True)
class DKUXNetHyperparameters(DKUXNetSupervisedHyperparameters, SemiSupervisedHyperparameters):
    contrast_weight: float = setting(
        0.1, "lambda, weight of the contrast at the end of its ramp", source="no value in Eq. 5; recommended", low=0.0
    )
    temperature: float = setting(0.1, "tau of the contrast", source="no value in Eq. 3; recommended", low=0.01)
    warmup_fraction: float = setting(
        0.1, "fraction of training without contrast", source="recommended", low=0.0, high=1.0
    )
    rampup_fraction: float = setting(
        0.3, "fraction over which its weight then rises", source="recommended", low=0.0, high=1.0
    )
    contrast: str = setting(
        "sample",
        "whole maps as vectors, or one vector per voxel; none: whole maps without negatives",
        source="Eq. 4; sample recommended",
        choices=("sample", "voxel", "none"),
    )
    contrast_channels: str = setting(
        "foreground",
        "classes and groups that are contrasted",
        source="all, Eq. 4; recommended",
        choices=("foreground", "all"),
    )
    segmentation_contrast: bool = setting(True, "contrast of the predictions", source="on, Eq. 4")
    query_contrast: bool = setting(True, "contrast of the query distributions", source="on, Eq. 4")
    detach_weak: bool = setting(False, "only the strong views learn from the contrast", source="both, Fig. 1")


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
        extra_memory="see its page",
        extra_time="see its page",
    )
    uses_unlabeled: ClassVar[bool] = True

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> dict[str, Tensor]:
        hp = self.hyperparameters
        out = self.forward_views(labeled, unlabeled)
        terms = self.labeled_terms(out, labeled)
        counted = self.counted_voxels(labeled, unlabeled)
        if self._step % OBSERVE_EVERY == 0:
            self.observe_contrast(out, counted, len(labeled.image))
        ramp = self.ramp()
        if hp.contrast_weight * ramp > 0:  # else the forward alone, which keeps shapes and statistics as they will be
            for name, maps in self.contrasted_maps(out).items():
                terms[name] = self.weigh(name, self.contrast(maps, counted), hp.contrast_weight * ramp)
        return terms

    def ramp(self) -> float:
        """r(t): 0 in the warm-up, then exp(-5 (1 - s)^2) with s from 0 to 1, then 1."""
        hp = self.hyperparameters
        since = self.progress - hp.warmup_fraction
        if since < 0:
            return 0.0
        return sigmoid_rampup(since / hp.rampup_fraction) if since < hp.rampup_fraction else 1.0

    def contrasted_maps(self, out: DKUXNetOutput) -> dict[str, Tensor]:
        """P and Q (2B, C, *P) in [0, 1], without background unless the settings want it."""
        hp, maps = self.hyperparameters, {}
        if hp.segmentation_contrast:
            maps["segmentation_contrast"] = self.predictions(out.logits)
        if hp.query_contrast:
            first = 0 if hp.contrast_channels == "all" else 1
            maps["query_contrast"] = log_query_distribution(out.responses, self.group_of_query).exp()[:, first:]
        return maps

    def predictions(self, logits: Tensor) -> Tensor:
        """P: of regions, all are foreground."""
        if self.label_manager.has_regions:
            return logits.float().sigmoid()
        return logits.float().softmax(1)[:, 0 if self.hyperparameters.contrast_channels == "all" else 1 :]

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
            return voxelwise_info_nce(maps, hp.temperature, counted)
        loss = paired_info_nce if hp.contrast == "sample" else paired_distance
        return loss((maps * counted).flatten(1), hp.temperature)

    def counted_voxels(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> Tensor:
        """(2B, 1, *P) bool: neither padding nor ignore label, the same in both views."""
        of_one_view = torch.cat([self.group_labels(labeled)[1], unlabeled.valid])
        return torch.cat([of_one_view, of_one_view])

    @torch.no_grad()
    def observe_contrast(self, out: DKUXNetOutput, counted: Tensor, labeled: int) -> None:
        """Log similarities of partners and of negatives, and the predicted foreground of both streams."""
        half = len(out.logits) // 2
        self.observe_pseudo_labels(out.logits[half + labeled :], out.logits[labeled:half], counted[labeled:half])
        for name, maps in self.contrasted_maps(out).items():
            positive, negative = mean_similarities((maps * counted).flatten(1))
            kind = name.removesuffix("_contrast")
            self.monitor.add(f"similarity_of_partners_{kind}", positive)
            self.monitor.add(f"similarity_of_others_{kind}", negative)
        foreground = self.foreground_probability(out.logits) * counted
        for name, rows in (("labeled", slice(0, labeled)), ("unlabeled", slice(labeled, half))):
            fraction = foreground[rows].sum() / counted[rows].sum().clamp(min=1)
            self.monitor.add(f"predicted_foreground_{name}", fraction)

    def foreground_probability(self, logits: Tensor) -> Tensor:
        """(B, 1, *P); of regions the largest."""
        if self.label_manager.has_regions:
            return logits.float().sigmoid().amax(1, keepdim=True)
        return 1 - logits.float().softmax(1)[:, :1]
