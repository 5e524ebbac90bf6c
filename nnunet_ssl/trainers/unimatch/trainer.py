"""UniMatch: strong, mixed views and thinned-out features learn what is confident in the weak view.

Source: Yang et al., "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation" (CVPR 2023) and
its code for medical images; FixMatch: Sohn et al. (NeurIPS 2020). What is recommended here: docs/methods/unimatch.md.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.trainers.cutmix_trainer import MixesPatches
from nnunet_ssl.trainers.unimatch.feature_dropout import FeatureDropout
from nnunet_ssl.trainers.unimatch.settings import UniMatchHyperparameters
from nnunet_ssl.training.base import Terms, nnUNetTrainerSemiSupervised
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.deep_supervision import finest, split_outputs
from nnunet_ssl.training.network import check_unet, unwrap
from nnunet_ssl.training.teacher import Teacher, warmed_up


class nnUNetTrainerUniMatch(MixesPatches, nnUNetTrainerSemiSupervised):
    """L = L_sup(labelled) + w r(progress) { 1/2 mean_views l(strong, mixed) + 1/2 l(weak with dropped features) }.

    l: cross-entropy and Dice towards the most probable class of the weak view, where its probability is at least tau.
    """

    Hyperparameters: ClassVar[type] = UniMatchHyperparameters
    hyperparameters: UniMatchHyperparameters
    labeled_view: ClassVar[str] = "image"
    card: ClassVar[MethodCard] = MethodCard(
        paper="Yang et al., UniMatch, CVPR 2023",
        predicts="teacher (option: student)",
        dimensions="2D, 3D",
        extra_memory="one copy of the network, two batches more",
        extra_time="about 2.2",
    )

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> Terms:
        hp, images = self.hyperparameters, getattr(labeled, self.labeled_view)
        weight = hp.unsupervised_weight * self.ramp(hp.rampup_fraction, hp.warmup_fraction)
        if weight == 0:
            return Terms(supervised=self.supervised_loss(self.forward(self.network, images), labeled.target))
        weight, weak = self.held(weight), self.label(unlabeled.weak)
        boxes = [self.cutmix.draw(unlabeled.weak) for _ in range(hp.strong_views)]
        inputs = [self.cutmix.paste(unlabeled.draw_strong(), box) for box in boxes]
        features = self.feature_dropout
        if features is not None:
            inputs.append(unlabeled.weak)
        with nullcontext() if features is None else features.of_last(len(unlabeled)):
            outputs, rest = self.forward_joint(images, torch.cat(inputs))
        terms = Terms(supervised=self.supervised_loss(outputs, labeled.target))

        label, confidence = self.targets.pseudo_label(weak)
        keep = self.confident(label, confidence, hp.threshold, unlabeled.valid)
        strong = []
        for box in boxes:
            student, rest = split_outputs(rest, len(unlabeled))
            strong.append(self.learn(student, *(self.cutmix.paste(m, box) for m in (label, keep, unlabeled.valid))))
            self.observe_pseudo_labels(finest(student), weak, unlabeled.valid, box)
        terms.add("strong", torch.stack(strong).mean(), weight if features is None else weight / 2)
        if features is not None:
            terms.add("features", self.learn(rest, label, keep, unlabeled.valid), weight / 2)
        return terms

    def learn(self, outputs: Any, *maps: Tensor) -> Tensor:
        """l of outputs, towards (label, keep, valid)."""
        loss = partial(self.targets.pseudo_supervision, self.hyperparameters.pseudo_loss)
        return self.deep_supervised(loss, outputs if self.hyperparameters.deep_pseudo else finest(outputs), *maps)

    def label(self, images: Tensor) -> Tensor:
        """Logits (B_U, K, *P) of the weak view, without gradient, by the teacher or by the network itself."""
        return self.label_with(self.network, images) if self.teacher is None else self.teacher(images)

    # ---- construction

    @classmethod
    def check_supported(cls, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        super().check_supported(plans, configuration, dataset_json)
        if cls.settings_of(plans).hyperparameters.feature_dropout is not None:
            reason = "it drops features of a U-Net's encoder. Set the hyper-parameter feature_dropout=null."
            check_unet(cls.__name__, plans, configuration, reason)

    def build_auxiliary(self) -> dict[str, nn.Module]:
        hp, modules = self.hyperparameters, super().build_auxiliary()
        dropped = hp.feature_dropout
        self.feature_dropout = None if dropped is None else FeatureDropout(unwrap(self.network), dropped)
        if hp.teacher == "none":
            return modules
        self.teacher = Teacher(self.network_copy(), warmed_up(hp.ema_decay))
        return modules | self.teacher.modules()
