"""Lagrange-duality consistency and boundary-aware contrast beside a mean teacher, on the plans' own U-Net.

Source: Zheng et al., "Lagrange Duality and Compound Multi-Attention Transformer for Semi-Supervised Medical Image
Segmentation" (arXiv:2409.07793). Most of the training is neither in the paper nor in its released code; see
docs/methods/ldc.md.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from torch import Tensor, nn

from nnunet_ssl.architectures.boundary_heads import SignedDistanceHead, SliceProjection
from nnunet_ssl.architectures.feature_tap import FeatureTap
from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.losses.lagrangian import brier_score, dice_cross_entropy_consistency
from nnunet_ssl.losses.signed_distance import signed_distance_mse
from nnunet_ssl.trainers.distance_targets import DISTANCE, AddSignedDistance, resize_maps
from nnunet_ssl.trainers.ldc.dice_weights import DiceWeights
from nnunet_ssl.trainers.ldc.dual_ascent import LABELED, UNLABELED, DualAscent
from nnunet_ssl.trainers.ldc.settings import LDCHyperparameters
from nnunet_ssl.trainers.ldc.slice_contrast import slice_contrast, unused
from nnunet_ssl.training.base import Terms, nnUNetTrainerSemiSupervised
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.deep_supervision import finest
from nnunet_ssl.training.distributed import ddp_weight, voxel_mean
from nnunet_ssl.training.network import check_unet, unwrap
from nnunet_ssl.training.targets import mean_dice
from nnunet_ssl.training.teacher import Teacher, warmed_up


class nnUNetTrainerLDC(nnUNetTrainerSemiSupervised):
    """L = lambda_sup (Brier + L_sdm) + beta r L_ctr + gamma (L_LDC^L + r L_LDC^U) + eta (||W||^2 / C - 1), Eq. 5.

    L_LDC = L_con + sum_c lambda_c (m_c - s_c): cross-entropy and Dice under the constraint that each class is predicted
    with the volume of its target, on labelled patches the label's, on unlabelled ones the teacher's. After each step:
    lambda <- clip(lambda + tau w (m - s) / max(m, s)); teacher <- a teacher + (1 - a) student.
    """

    Hyperparameters: ClassVar[type] = LDCHyperparameters
    hyperparameters: LDCHyperparameters
    views: ClassVar[tuple[str, ...]] = ("labeled.weak", "labeled.strong", "unlabeled.weak", "unlabeled.strong")
    teacher: Teacher
    card: ClassVar[MethodCard] = MethodCard(
        paper="Zheng et al., Lagrange duality, arXiv:2409.07793",
        predicts="student (option: teacher)",
        dimensions="2D, 3D",
        extra_memory="one copy of the network, heads",
        extra_time="about 1.3",
    )

    @classmethod
    def check_supported(cls, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        super().check_supported(plans, configuration, dataset_json)
        check_unet(cls.__name__, plans, configuration)

    # ---- construction, data

    def set_up(self) -> None:
        super().set_up()
        self.dice_weights = DiceWeights(self, self.hyperparameters.class_weights)

    def build_auxiliary(self) -> dict[str, nn.Module]:
        hp, dimensions = self.hyperparameters, len(self.configuration_manager.patch_size)
        student, classes = unwrap(self.network), len(self.targets.foreground)
        self.dual = DualAscent(student, self.optimizer, self.targets, hp, self.device)
        teacher = self.network_copy()
        self.student_tap, self.teacher_tap = FeatureTap(student), FeatureTap(teacher)
        modules: dict[str, nn.Module] = {
            "distance_head": SignedDistanceHead(dimensions, self.student_tap.channels, classes)
        }
        if hp.contrast_weight > 0:
            modules["projection"] = SliceProjection(classes, hp.pooled_size, hp.projection_hidden, hp.projection_size)
        self.teacher = Teacher(teacher, warmed_up(hp.ema_decay), modules)
        return {**modules, **self.teacher.modules()}

    def labeled_steps(self) -> list[BasicTransform]:
        """The workers add the signed distance maps of the labels, at half the resolution in 3D."""
        return [AddSignedDistance.of_plans(self.label_manager, self.configuration_manager)]

    # ---- one step

    def on_train_start(self) -> None:
        super().on_train_start()
        self.dice_weights()  # counted before the first step
        if not self._resumed:
            self.dual.set_budget()  # -pretrained_weights were loaded after the first one

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if self.hyperparameters.reset_each_epoch:
            self.dual.multipliers.reset()

    @property
    def unlabeled_ramp(self) -> float:
        """r: 0 in the warm-up, then up to 1, as far as the guard lets it."""
        rise, warmup = self.hyperparameters.rampup_fraction, self.hyperparameters.warmup_fraction
        return self.held(self.ramp(rise, warmup, from_start=True))

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> Terms:
        hp, ramp = self.hyperparameters, self.unlabeled_ramp
        weight, contrast_weight = hp.constrained_weight * hp.unlabeled_weight * ramp, hp.contrast_weight * ramp
        self.dual.begin()
        with self.student_tap.open():
            if weight > 0 or contrast_weight > 0:
                outputs, other = self.forward_joint(labeled.strong, unlabeled.strong)
            else:
                outputs, other = self.forward(self.network, labeled.strong), None
        distance = self.forward(self.auxiliary["distance_head"], self.student_tap.take())
        label, annotated = self.targets.labels(labeled.target), self.targets.annotated(labeled.target)
        mask, maps = finest(annotated), resize_maps(labeled.extra[DISTANCE], distance.shape[2:])
        regression = voxel_mean(signed_distance_mse, distance[: len(labeled)], maps, mask=mask)
        error = voxel_mean(brier_score, finest(outputs), finest(label), mask=mask, regions=self.targets.has_regions)
        terms = Terms()
        constrained = self.constrained(LABELED, outputs, label, annotated)  # Eqs. 2 and 3
        terms.add("constrained", constrained, hp.constrained_weight)
        terms.add("squared_error", error, hp.supervised_weight)
        terms.add("distance", regression, hp.supervised_weight)
        terms.add("norm", *self.dual.norm_term())
        if other is None:
            if self.observing:  # for the guard
                student = self.label_with(self.network, unlabeled.strong)
                self._observe(student, self._teacher(unlabeled.weak)[0], unlabeled.valid)
        else:
            student = finest(other)
            teacher, features = self._teacher(unlabeled.weak)
            self._observe(student, teacher, unlabeled.valid)
            if weight > 0:
                pseudo, certain = self.pseudo_labels(teacher, unlabeled.valid)
                if self.observing and hp.confidence_threshold > 0:
                    self.monitor.kept(pseudo, certain, unlabeled.valid)
                term = self.constrained(UNLABELED, student, pseudo, certain, teacher)
                terms.add("constrained_unlabeled", term, weight)
        if contrast_weight > 0:
            known = labeled.valid if mask is None else mask & labeled.valid
            both = zip(self._teacher(labeled.weak), (teacher, features), strict=True)
            seen, features = (torch.cat(parts) for parts in both)
            drawn = self.teacher.head("distance_head", features), distance
            contrast = self.contrast(drawn, seen, (known, unlabeled.valid))  # Eq. 4
            terms.add("contrast", contrast, contrast_weight)
        elif "projection" in self.auxiliary:
            terms.add("contrast", unused(self.auxiliary["projection"], distance, hp.slices), 0.0)
        return terms

    def _teacher(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's logits of one stream, and the features from which its distance head reads."""
        with self.teacher_tap.open():
            logits = self.teacher(images)
        return logits, self.teacher_tap.take()

    def pseudo_labels(self, teacher: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """(hard labels, where they count) of the teacher's logits: classes (B, 1, *P), or regions (B, R, *P)."""
        threshold = self.hyperparameters.confidence_threshold
        if threshold > 0:
            valid = valid & (self.targets.confidence(teacher) > threshold)
        return self.targets.decide(teacher), valid

    def constrained(self, part: str, outputs: Any, target: Any, mask: Any, teacher: Tensor | None = None) -> Tensor:
        """L_LDC of one part of the data: L_con at every resolution, the constraints at full resolution."""
        objective = self.deep_supervised(self._objective, outputs, target, mask)
        violation, count = self.dual.constrain(part, finest(outputs), finest(target), finest(mask), teacher)
        return (objective + violation) * ddp_weight(count)

    def _objective(self, logits: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """L_con, Eq. 2."""
        hp = self.hyperparameters
        return dice_cross_entropy_consistency(
            logits, target, self.dice_weights(), hp.alpha, mask,
            regions=self.targets.has_regions, dice_form=hp.dice_form,
        )  # fmt: skip

    def contrast(self, maps: tuple[Tensor, Tensor], teacher: Tensor, valid: tuple[Tensor, Tensor]) -> Tensor:
        """L_ctr between slices of the teacher's and the student's signed distances (B_L + B_U, F, *P)."""
        projections = self.auxiliary[Teacher.copy_of("projection")], self.auxiliary["projection"]
        segmented, has_ignore = self.targets.decided_masks(teacher), self.targets.ignore_label is not None
        return slice_contrast(projections, maps, segmented, valid, has_ignore, self.hyperparameters, self.monitor)

    def after_optimizer_step(self) -> None:
        self.dual.ascend(self.unlabeled_ramp)  # Eq. 3
        if self.observing:
            self.dual.observe(self.monitor)

    # ---- monitors, checkpoint

    @torch.no_grad()
    def _observe(self, student: Tensor, teacher: Tensor, valid: Tensor) -> None:
        self.observe_pseudo_labels(student, teacher, valid)
        if self.observing:
            masks = (self.targets.decided_masks(z) & valid for z in (student, teacher))
            self.monitor.add("teacher_student_dice", *mean_dice(*masks))

    def auxiliary_state(self) -> dict[str, Any]:
        return self.dual.state()

    def load_auxiliary_state(self, state: dict[str, Any]) -> None:
        self.dual.load_state(state)
