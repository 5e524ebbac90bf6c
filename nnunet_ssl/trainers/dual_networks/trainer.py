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
from nnunet_ssl.losses.regions import as_two_classes, for_each_region
from nnunet_ssl.losses.squared_dice import squared_dice
from nnunet_ssl.trainers.dual_networks.settings import DualNetworksHyperparameters
from nnunet_ssl.training.base import nnUNetTrainerSemiSupervised
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.deep_supervision import finest
from nnunet_ssl.training.network import unwrap
from nnunet_ssl.training.pseudo_labels import annotated_foreground
from nnunet_ssl.training.ramps import sigmoid_rampup


class nnUNetTrainerDualNetworks(nnUNetTrainerSemiSupervised):
    """L = L_s^S + L_s^T + L_reg + L_une + w (L_u^S + L_u^T) + lambda L_c (Eq. 1).

    S: residual U-Net, T: plain U-Net, on the same patches. L_s: nnU-Net's loss; L_reg: cosine consistency of all
    patches; L_une: S imitates T, voxel by voxel as far as both agree; L_u: both learn their common pseudo-labels of low
    entropy; L_c: features of S at uncertain voxels move to the prototypes of reliable ones. No weights are averaged.
    """

    Hyperparameters: ClassVar[type] = DualNetworksHyperparameters
    hyperparameters: DualNetworksHyperparameters
    card: ClassVar[MethodCard] = MethodCard(
        paper="Lu et al., Dual Networks, arXiv:2505.17690",
        predicts="mean of both networks (options: student, teacher)",
        dimensions="2D, 3D",
        extra_memory="a second network; option: one part at a time",
        extra_time="both networks' own steps, about 1.1 times",
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
    def refuse(cls, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        super().refuse(plans, configuration, dataset_json)
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

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> dict[str, Tensor]:
        hp, count = self.hyperparameters, len(labeled.image)
        out: DualOutput = self.forward(self.network, labeled.image, unlabeled.weak)
        student, teacher = (finest(logits).float() for logits in (out.student, out.teacher))
        self.observe_pseudo_labels(student[count:], teacher[count:], unlabeled.valid)

        terms = {
            "supervised_student": self.supervised(_first(out.student, count), labeled.target),
            "supervised_teacher": self.supervised(_first(out.teacher, count), labeled.target),
        }
        target = finest(labeled.target)
        if hp.disagreement_weight > 0:
            terms |= self._disagreement_terms(student[:count], teacher[:count], target)
        terms |= self._agreement_terms(student, teacher, unlabeled.valid)
        if hp.pseudo_label_weight > 0 or hp.contrast_weight > 0:
            is_student = self._weaker_is_student(student[:count], teacher[:count], target) if hp.dynamic_roles else None
            features = (out.student_features[count:], out.teacher_features[count:])
            terms |= self._pseudo_label_terms((student[count:], teacher[count:]), features, unlabeled.valid, is_student)
        return terms

    def supervised(self, outputs: Any, target: Any) -> Tensor:
        """L_s of one network (Eq. 2): nnU-Net's own."""
        return self.supervised_loss(outputs, target)

    def _agreement_terms(self, student: Tensor, teacher: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """L_reg (Eq. 5) and L_une (Eq. 8), of labelled and unlabelled patches."""
        hp = self.hyperparameters
        labeled = valid.new_ones(len(student) - len(valid), *valid.shape[1:])
        counted = torch.cat((labeled, valid))
        share, ramp = self.share_of_ranks(counted.sum()), self._ramp() if hp.ramp_agreement else 1.0
        student, teacher, counted = self.classes(student), self.classes(teacher), self.maps(counted)
        terms = {}
        if hp.consistency_weight > 0:
            distance = cosine_consistency(student, teacher, counted)
            terms["consistency"] = self.weigh("consistency", distance * share, hp.consistency_weight * ramp)
        if hp.uncertainty_weight > 0:
            imitation = uncertainty_rectified_cross_entropy(
                student, teacher, hp.temperature, hp.hard_target, counted, hp.detach_uncertainty
            )
            terms["uncertainty"] = self.weigh("uncertainty", imitation * share, hp.uncertainty_weight * ramp)
        return terms

    def _pseudo_label_terms(
        self, logits: tuple[Tensor, Tensor], features: tuple[Tensor, Tensor], valid: Tensor, is_student: Tensor | None
    ) -> dict[str, Tensor]:
        """L_u of both networks (Eqs. 3 and 4) and L_c (Eqs. 10 and 11), of (student, teacher) on unlabelled patches."""
        hp, terms = self.hyperparameters, {}
        make_decision = decide_regions if self.label_manager.has_regions else decide
        own = [make_decision(z, hp.percentile, valid) for z in logits]
        (labels, reliable), _ = given = self._labels_for_both(own)
        self.monitor.add("reliable", reliable.sum() / valid.sum().clamp(min=1))
        if hp.pseudo_label_weight > 0:
            weight = hp.pseudo_label_weight * self._ramp()
            for name, z, (label, kept) in zip(("student", "teacher"), logits, given, strict=True):
                error = masked_cross_entropy(
                    self.classes(z), self.classwise(label), self.maps(kept.unsqueeze(1)).squeeze(1)
                )
                error = error * self.share_of_ranks(kept.sum())
                terms[f"pseudo_label_{name}"] = self.weigh(f"pseudo_label_{name}", error, weight)
        if hp.contrast_weight > 0:
            embedding, decided = features[0], own[0].label
            if is_student is not None:
                embedding = torch.where(is_student, *features)
                decided = torch.where(is_student, own[0].label, own[1].label)
                labels, reliable = (torch.where(is_student, a, b) for a, b in zip(*given, strict=True))
            contrast = self._contrast(embedding, labels, decided, reliable, valid[:, 0])
            weight = hp.contrast_weight * sigmoid_rampup(self.progress)
            terms["contrast"] = self.weigh("contrast", contrast, weight)
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

    def _disagreement_terms(self, student: Tensor, teacher: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Of the released code alone: the error of each network where their confident foreground differs."""
        hp = self.hyperparameters
        labels, annotated = self.label_maps(target)
        student, teacher = self.classes(student), self.classes(teacher)
        disputed = disagreement(student, teacher, hp.disagreement_threshold) & annotated
        return {
            f"disagreement_{name}": self.weigh(
                f"disagreement_{name}", foreground_mse(z, labels, disputed), hp.disagreement_weight
            )
            for name, z in (("student", student), ("teacher", teacher))
        }

    @torch.no_grad()
    def _weaker_is_student(self, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """Whether the student has the larger Dice loss on the labelled patches, as a bool tensor."""
        labels, annotated = self.label_maps(target)
        first, second = (squared_dice(self.classes(z), labels, annotated) for z in (student, teacher))
        return first >= second

    def _ramp(self) -> float:
        fraction = self.hyperparameters.rampup_fraction
        return sigmoid_rampup(self.progress / fraction) if fraction > 0 else 1.0

    # ---- regions as problems of two classes each

    def classes(self, logits: Tensor) -> Tensor:
        """Logits of exclusive classes: (B, K, *P), of R regions (B * R, 2, *P)."""
        return as_two_classes(logits) if self.label_manager.has_regions else logits

    def maps(self, volume: Tensor) -> Tensor:
        """A map (B, 1, *P) for :meth:`classes`: unchanged, or (B * R, 1, *P)."""
        if not self.label_manager.has_regions:
            return volume
        return for_each_region(volume, self.label_manager.num_segmentation_heads)

    def classwise(self, label: Tensor) -> Tensor:
        """Labels (B, *P), or of regions (B, R, *P) -> (B * R, *P)."""
        return label.flatten(0, 1) if self.label_manager.has_regions else label

    def label_maps(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """(labels, annotated) for :meth:`classes`, of nnU-Net's full-resolution target."""
        _, annotated = annotated_foreground(target, self.label_manager)
        if not self.label_manager.has_regions:
            return target, annotated
        regions = target[:, : self.label_manager.num_segmentation_heads]
        return self.classwise(regions).unsqueeze(1), self.maps(annotated)


def _first(outputs: Any, count: int) -> Any:
    """The first samples of what a network returns with or without deep supervision."""
    return [o[:count] for o in outputs] if isinstance(outputs, (list, tuple)) else outputs[:count]
