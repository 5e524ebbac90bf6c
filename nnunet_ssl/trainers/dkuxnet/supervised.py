"""DKUXNet on labelled cases alone: the network, its optimisation and the three losses that need labels.

Source: Wu, Li & Zhang, "Semi-supervised medical image segmentation via query distribution consistency" (ISBI 2024), the
row of 100 % labels; see docs/methods/dkuxnet.md.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from batchgeneratorsv2.transforms.noise.blank_rectangle import BlankRectangleTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from torch import Tensor

from nnunet_ssl.architectures.dkuxnet import DKUXNet, DKUXNetOutput
from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.data.views import StrongView
from nnunet_ssl.losses.info_nce import mean_similarities
from nnunet_ssl.losses.query_distribution import log_query_distribution, query_distribution_loss
from nnunet_ssl.trainers.dkuxnet.network import nnUNetTrainerDKUXNetNetwork
from nnunet_ssl.trainers.dkuxnet.query_perplexity import query_perplexity
from nnunet_ssl.trainers.dkuxnet.settings import DKUXNetSupervisedHyperparameters
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.deep_supervision import resize_to
from nnunet_ssl.training.monitor import COUNT
from nnunet_ssl.training.monitored import OBSERVE_EVERY
from nnunet_ssl.training.network import unwrap
from nnunet_ssl.training.pseudo_labels import annotated_foreground


class nnUNetTrainerDKUXNetSupervised(nnUNetTrainerDKUXNetNetwork):
    """L = L_seg + lambda_qd L_qd + lambda_aux L_aux on a weak and a strong view of each labelled patch.

    L_seg: nnU-Net's own loss; L_qd: likelihood of the right group of queries; L_aux: the same of every k-means layer,
    which nothing else teaches to assign. The control of nnUNetTrainerDKUXNet: no unlabelled image is read.
    """

    Hyperparameters: ClassVar[type] = DKUXNetSupervisedHyperparameters
    hyperparameters: DKUXNetSupervisedHyperparameters
    card: ClassVar[MethodCard] = MethodCard(
        paper="Wu et al., DKUXNet, ISBI 2024, labelled cases alone",
        predicts="the network, a 3D UX-Net with queries",
        dimensions="2D, 3D",
        extra_memory="two views of every patch, queries; an estimate is logged",
        extra_time="12 (3D), 3 (2D) on a CPU",
    )
    uses_unlabeled: ClassVar[bool] = False
    weak_labeled_view: ClassVar[bool] = True

    def make_strong_view(self, anisotropic: bool) -> StrongView:
        """The photometric view and, in three of ten, a blank box of 10 to 25 % of the patch's edges (recommended)."""
        edges = tuple((-(-n // 10), max(1, n // 4) + 1) for n in self.configuration_manager.patch_size)  # end excluded
        blank = RandomTransform(BlankRectangleTransform(edges, 0.0, 1), 0.3)
        return StrongView((0,) if anisotropic else None, (blank,), self.masked_channels)

    # ---- one step

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> dict[str, Tensor]:
        out = self.forward_views(labeled, unlabeled)
        groups, annotated = self.group_labels(labeled)
        of_one_view = torch.cat([annotated, unlabeled.valid])
        counted = torch.cat([of_one_view, of_one_view])  # neither padding nor ignore label
        if self._step % OBSERVE_EVERY == 0:
            self.observe(out, counted, len(labeled.image))
        return self.labeled_terms(out, labeled.target, groups, annotated) | self.contrast_terms(out, counted)

    def contrast_terms(self, out: DKUXNetOutput, counted: Tensor) -> dict[str, Tensor]:
        """None here.

        Args:
            counted: (2B, 1, *P) bool, the same in both views.
        """
        return {}

    def forward_views(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> DKUXNetOutput:
        """One forward, so one set of batch statistics, of [weak; strong], the labelled patches first in each."""
        images = torch.cat([labeled.image, unlabeled.weak, labeled.strong, unlabeled.strong])
        return cast(DKUXNetOutput, self.forward(self.network, images))

    def labeled_terms(self, out: DKUXNetOutput, target: Any, groups: Tensor, annotated: Tensor) -> dict[str, Tensor]:
        """L_seg, L_qd and L_aux, means over the two views; for groups and annotated see :meth:`group_labels`."""
        hp, count, half = self.hyperparameters, len(groups), len(out.logits) // 2
        views = (slice(0, count), slice(half, half + count))

        def query_loss(responses: Tensor) -> Tensor:
            (group,), (mask,) = (resize_to(volume, [responses]) for volume in (groups, annotated))
            assert group is not None and mask is not None
            parts = [query_distribution_loss(responses[view], group, self.group_of_query, mask) for view in views]
            return torch.stack(parts).mean() * self.share_of_ranks(mask.sum())

        assignment = torch.stack([query_loss(responses) for responses in out.intermediate]).mean()
        supervised = torch.stack([self.supervised_loss(out.logits[view], target) for view in views]).mean()
        return {
            "supervised": supervised,
            "query_distribution": self.weigh("query_distribution", query_loss(out.responses), hp.query_loss_weight),
            "assignment": self.weigh("assignment", assignment, hp.assignment_weight),
        }

    def group_labels(self, labeled: LabeledBatch) -> tuple[Tensor, Tensor]:
        """(label merged to the query groups, where it counts), both (B_L, 1, *P), the latter bool."""
        target = cast(Tensor, labeled.target)
        foreground, counted = annotated_foreground(target, self.label_manager)
        last = int(self.group_of_query[-1])
        merged = foreground.long() if self.label_manager.has_regions else target.clamp(0, last).long()
        return merged, counted if labeled.valid is None else counted & labeled.valid

    def maps(self, out: DKUXNetOutput, background: bool = False) -> dict[str, Tensor]:
        """P and Q (2B, C, *P) in [0, 1], with or without background; of regions, all channels of P are foreground."""
        first = 0 if background else 1
        if self.label_manager.has_regions:
            prediction = out.logits.float().sigmoid()
        else:
            prediction = out.logits.float().softmax(1)[:, first:]
        distribution = log_query_distribution(out.responses, self.group_of_query).exp()[:, first:]
        return {"segmentation": prediction, "query": distribution}

    @torch.no_grad()
    def observe(self, out: DKUXNetOutput, counted: Tensor, labeled: int) -> None:
        """Log how many queries are in use, the scale of the responses, and how similar the views of patches are."""
        layers = torch.stack([query_perplexity(responses) for responses in out.intermediate])
        self.monitor.add(f"{COUNT}used_queries_of_layers", layers.mean())
        self.monitor.add(f"{COUNT}used_queries", query_perplexity(out.responses))
        net = cast(DKUXNet, unwrap(self.network))
        self.monitor.add("response_scale", net.predictor.temperature.weight[0])
        for name, maps in self.maps(out).items():
            partners, others = mean_similarities((maps * counted).flatten(1))
            self.monitor.add(f"similarity_of_partners_{name}", partners)
            self.monitor.add(f"similarity_of_others_{name}", others)
        self._observe_foreground("labeled", out.logits[:labeled], counted[:labeled])

    def _observe_foreground(self, name: str, logits: Tensor, counted: Tensor) -> None:
        """Log the mean probability of any foreground over the voxels that count."""
        if self.label_manager.has_regions:
            foreground = logits.float().sigmoid().amax(1, keepdim=True)
        else:
            foreground = 1 - logits.float().softmax(1)[:, :1]
        self.monitor.add(f"predicted_foreground_{name}", (foreground * counted).sum() / counted.sum().clamp(min=1))
