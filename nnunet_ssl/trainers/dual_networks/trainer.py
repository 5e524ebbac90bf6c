"""Dual Networks: two different networks that agree, doubt and label each other, and prototypes of the classes.

Source: Lu, Wu, Kateb & Chaddad, "Semi-supervised medical image segmentation via dual networks" (2025); where the paper
and the authors' code differ, see docs/methods/dual_networks.md.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, nn

from nnunet_ssl.architectures.dual_networks import DualNet, DualOutput, counterparts
from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.losses.consistency import cosine_consistency, uncertainty_rectified_cross_entropy
from nnunet_ssl.losses.disagreement import disagreement, foreground_mse
from nnunet_ssl.losses.prototypes import prototype_contrast
from nnunet_ssl.losses.pseudo_label import Decision, decide, decide_regions, masked_cross_entropy, unite
from nnunet_ssl.losses.squared_dice import squared_dice
from nnunet_ssl.trainers.dual_networks.settings import DualNetworksHyperparameters
from nnunet_ssl.training.base import Terms, nnUNetTrainerSemiSupervised
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.deep_supervision import finest, split_outputs
from nnunet_ssl.training.distributed import ddp_weight, voxel_mean
from nnunet_ssl.training.network import unwrap

REPELLING = 8  # classes from which on L_une with a gradient through its weight repels S from an uncertain T


class nnUNetTrainerDualNetworks(nnUNetTrainerSemiSupervised):
    """L = L_s^S + L_s^T + L_reg + L_une + w (L_u^S + L_u^T) + lambda L_c (Eq. 1).

    S: residual U-Net, T: plain U-Net, on the same patches. L_s: nnU-Net's loss; L_reg: cosine consistency of all
    patches; L_une: S imitates T, voxel by voxel as far as both agree; L_u: both learn their common pseudo-labels of low
    entropy; L_c: features of S at uncertain voxels move to the prototypes of reliable ones. No weights are averaged.
    """

    Hyperparameters: ClassVar[type] = DualNetworksHyperparameters
    hyperparameters: DualNetworksHyperparameters
    views: ClassVar[tuple[str, ...]] = ("labeled.image", "unlabeled.weak")
    card: ClassVar[MethodCard] = MethodCard(
        paper="Lu et al., Dual Networks, arXiv:2505.17690",
        predicts="mean of both networks (options: student, teacher)",
        dimensions="2D, 3D",
        extra_memory="a second network; option: one part at a time",
        extra_time="2.5 (3D), 3.2 (2D) in operations: the sum of both networks' own steps",
    )

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The plans' U-Net and its counterpart as :class:`DualNet`, with the options of the settings block."""
        hp: DualNetworksHyperparameters = cls.settings_of(plans_manager.plans).hyperparameters
        return DualNet.from_plans(
            configuration_manager.network_arch_class_name,
            configuration_manager.network_arch_init_kwargs,
            configuration_manager.network_arch_init_kwargs_req_import,
            num_input_channels,
            num_output_channels,
            enable_deep_supervision,
            channel_dropout=hp.channel_dropout,
            predict_with=hp.predict_with,
            sequential=hp.sequential,
        )

    @classmethod
    def check_supported(cls, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        super().check_supported(plans, configuration, dataset_json)
        manager = PlansManager(plans).get_configuration(configuration)
        counterparts(manager.network_arch_class_name, manager.network_arch_init_kwargs)

    def initialize(self) -> None:
        super().initialize()
        self._tell_regions()

    def on_train_start(self) -> None:
        super().on_train_start()
        self._tell_regions()  # -pretrained_weights may come from another kind of dataset

    def _tell_regions(self) -> None:
        cast(DualNet, unwrap(self.network)).region_based.fill_(self.label_manager.has_regions)

    def clipping_groups(self) -> list[list[nn.Parameter]]:
        net = cast(DualNet, unwrap(self.network))
        return [list(net.student.parameters()), list(net.teacher.parameters())]

    # ---- the terms

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> Terms:
        hp, count = self.hyperparameters, len(labeled)
        seen = len(unlabeled) if hp.learns_without_labels else 0
        out: DualOutput = self.forward(self.network, labeled.image, unlabeled.weak[:seen])
        student, teacher = (finest(logits).float() for logits in (out.student, out.teacher))
        if seen:
            self.observe_pseudo_labels(student[count:], teacher[count:], unlabeled.valid)

        terms = Terms(
            supervised_student=self.supervised(split_outputs(out.student, count)[0], labeled.target),
            supervised_teacher=self.supervised(split_outputs(out.teacher, count)[0], labeled.target),
        )
        target = finest(labeled.target)
        if hp.disagreement_weight > 0:
            terms |= self._disagreement_terms(student[:count], teacher[:count], target)
        terms |= self._agreement_terms(student, teacher, torch.cat((labeled.valid, unlabeled.valid[:seen])))
        if hp.pseudo_label_weight > 0 or hp.contrast_weight > 0:
            is_student = self._weaker_is_student(student[:count], teacher[:count], target) if hp.dynamic_roles else None
            features = (out.student_features[count:], out.teacher_features[count:])
            terms |= self._pseudo_label_terms((student[count:], teacher[count:]), features, unlabeled.valid, is_student)
        return terms

    def supervised(self, outputs: Any, target: Any) -> Tensor:
        """L_s of one network (Eq. 2): nnU-Net's own."""
        return self.supervised_loss(outputs, target)

    def _agreement_terms(self, student: Tensor, teacher: Tensor, counted: Tensor) -> Terms:
        """L_reg (Eq. 5) and L_une (Eq. 8), of labelled and unlabelled patches."""
        hp = self.hyperparameters
        ramp = self.ramp(hp.rampup_fraction) if hp.ramp_agreement else 1.0
        both, mask = (self.targets.as_classes(student), self.targets.as_classes(teacher)), self.targets.as_maps(counted)
        terms = Terms()
        if hp.consistency_weight > 0:
            terms.add("consistency", voxel_mean(cosine_consistency, *both, mask=mask), hp.consistency_weight * ramp)
        if hp.uncertainty_weight > 0:
            detached = hp.detach_uncertainty
            if detached is None:
                detached = both[0].shape[1] >= REPELLING
            imitation = voxel_mean(
                uncertainty_rectified_cross_entropy, *both, hp.temperature, hp.hard_target,
                mask=mask, detach_weight=detached,
            )  # fmt: skip
            terms.add("uncertainty", imitation, hp.uncertainty_weight * ramp)
        return terms

    def _pseudo_label_terms(
        self, logits: tuple[Tensor, Tensor], features: tuple[Tensor, Tensor], valid: Tensor, is_student: Tensor | None
    ) -> Terms:
        """L_u of both networks (Eqs. 3 and 4) and L_c (Eqs. 10 and 11), of (student, teacher) on unlabelled patches."""
        hp, terms = self.hyperparameters, Terms()
        make_decision = decide_regions if self.label_manager.has_regions else decide
        own = [make_decision(z, hp.percentile, valid, hp.percentile_scope) for z in logits]
        (labels, reliable), _ = given = self._labels_for_both(own)
        self.monitor.add("reliable", reliable.sum() / valid.sum().clamp(min=1))
        if self.observing:
            self.monitor.kept(labels if self.targets.has_regions else labels.unsqueeze(1), reliable.unsqueeze(1), valid)
        if hp.pseudo_label_weight > 0:
            weight = self.held(hp.pseudo_label_weight * self.ramp(hp.rampup_fraction))
            for name, z, (label, kept) in zip(("student", "teacher"), logits, given, strict=True):
                mask = self.targets.as_maps(kept.unsqueeze(1)).squeeze(1)
                error = masked_cross_entropy(self.targets.as_classes(z), self.classwise(label), mask)
                terms.add(f"pseudo_label_{name}", error * ddp_weight(kept.sum()), weight)
        if hp.contrast_weight > 0:
            embedding, decided = features[0], own[0].label
            if is_student is not None:
                embedding = torch.where(is_student, *features)
                decided = torch.where(is_student, own[0].label, own[1].label)
                labels, reliable = (torch.where(is_student, a, b) for a, b in zip(*given, strict=True))
            contrast = self._contrast(embedding, labels, decided, reliable, valid[:, 0])
            terms.add("contrast", contrast, self.held(hp.contrast_weight * self.ramp(1.0)))
        return terms

    def _labels_for_both(self, own: list[Decision]) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """(labels, reliable) for the student and for the teacher."""
        if self.hyperparameters.pseudo_label_rule == "union":
            both = unite(*own)
            return both, both
        student, teacher = ((d.label, d.reliable) for d in own)
        return (student, teacher) if self.hyperparameters.pseudo_label_rule == "own" else (teacher, student)

    def _contrast(self, features: Tensor, labels: Tensor, decided: Tensor, reliable: Tensor, valid: Tensor) -> Tensor:
        """L_c; of each region against its complement, averaged, where there are regions."""
        hp, regions = self.hyperparameters, self.label_manager.has_regions
        pairs = zip(labels.unbind(1), decided.unbind(1), strict=True) if regions else [(labels, decided)]
        uncertain = ~reliable & valid
        losses = [
            prototype_contrast(
                features,
                torch.where(reliable, label, -1),
                torch.where(uncertain, guess, -1),
                2 if regions else self.label_manager.num_segmentation_heads,
                hp.contrast_fraction,
                hp.contrast_samples,
            )
            for label, guess in pairs
        ]
        return torch.stack(losses).mean()

    def _disagreement_terms(self, student: Tensor, teacher: Tensor, target: Tensor) -> Terms:
        """Of the released code alone: the error of each network where their confident foreground differs."""
        hp = self.hyperparameters
        labels, annotated = self.label_maps(target)
        student, teacher = self.targets.as_classes(student), self.targets.as_classes(teacher)
        disputed = disagreement(student, teacher, hp.disagreement_threshold) & annotated
        terms = Terms()
        for name, z in (("student", student), ("teacher", teacher)):
            terms.add(f"disagreement_{name}", foreground_mse(z, labels, disputed), hp.disagreement_weight)
        return terms

    @torch.no_grad()
    def _weaker_is_student(self, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """Whether the student has the larger Dice loss on the labelled patches, as a bool tensor."""
        labels, annotated = self.label_maps(target)
        first, second = (squared_dice(self.targets.as_classes(z), labels, annotated) for z in (student, teacher))
        return first >= second

    # ---- regions as problems of two classes each

    def classwise(self, label: Tensor) -> Tensor:
        """Labels (B, *P), or of regions (B, R, *P) -> (B * R, *P)."""
        return label.flatten(0, 1) if self.targets.has_regions else label

    def label_maps(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """(labels, annotated) for logits of exclusive classes, of nnU-Net's full-resolution target."""
        targets = self.targets
        return targets.as_labels(targets.labels(target)), targets.as_maps(targets.counted(target))
