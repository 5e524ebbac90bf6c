"""AD-MT: two teachers that follow one student in turns, and label together.

Source: Zhao et al., "Alternate Diverse Teaching for Semi-supervised Medical Image Segmentation" (ECCV 2024), its code.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.data.mixing import CutMix, draw_clipped_boxes
from nnunet_ssl.losses.entropy_ensemble import certainty_weighted, settle_conflicts
from nnunet_ssl.trainers.admt.alternation import Alternation
from nnunet_ssl.trainers.admt.settings import ADMTHyperparameters
from nnunet_ssl.training.base import Terms, nnUNetTrainerSemiSupervised
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.checkpoint import own_generator
from nnunet_ssl.training.deep_supervision import finest
from nnunet_ssl.training.teacher import Teacher, warmed_up

SECOND = "second_teacher"


class nnUNetTrainerADMT(nnUNetTrainerSemiSupervised):
    """L = L_sup(labelled) + w r(progress) l(strong view in one teacher's periods, mixed in the other's).

    Both teachers label the weak view together.
    """

    Hyperparameters: ClassVar[type] = ADMTHyperparameters
    hyperparameters: ADMTHyperparameters
    labeled_view: ClassVar[str] = "image"
    card: ClassVar[MethodCard] = MethodCard(
        paper="Zhao et al., AD-MT, ECCV 2024",
        predicts="student (option: first teacher)",
        dimensions="2D, 3D",
        extra_memory="two copies of the network",
        extra_time="about 1.5",
    )
    teacher: Teacher
    generator: torch.Generator

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> Terms:
        hp, images = self.hyperparameters, getattr(labeled, self.labeled_view)
        if hp.unsupervised_weight == 0:
            return Terms(supervised=self.supervised_loss(self.forward(self.network, images), labeled.target))
        box = self.draw_box(unlabeled.weak) if self.alternation.second else None
        seen = unlabeled.strong if box is None else CutMix.paste(unlabeled.weak, box)
        outputs, others = self.forward_joint(images, seen)
        student = finest(others)

        teacher = self.teacher(unlabeled.weak)
        label, confidence = self.label(teacher, self.second(unlabeled.weak), unlabeled)
        keep, valid = self.confident(label, confidence, hp.threshold, unlabeled.valid), unlabeled.valid
        self.observe_pseudo_labels(student, teacher, valid, box)
        maps = (CutMix.paste(m, box) for m in (label, keep, valid))
        loss = self.targets.pseudo_supervision(hp.pseudo_loss, student, *maps)
        terms = Terms(supervised=self.supervised_loss(outputs, labeled.target))
        terms.add("pseudo_label", loss, self.held(hp.unsupervised_weight * self.ramp(hp.rampup_fraction)))
        return terms

    @torch.no_grad()
    def label(self, first: Tensor, second: Tensor, unlabeled: UnlabeledBatch) -> tuple[Tensor, Tensor]:
        """(label, confidence) of the weak view: both teachers, and the student where they disagree and it is surer."""
        targets = self.targets
        p, q = targets.probabilities(first), targets.probabilities(second)
        both = certainty_weighted(p, q, targets.has_regions, self.hyperparameters.entropy_unit)
        conflict = targets.decide(first) != targets.decide(second)
        if self.observing:
            disputed = conflict.any(1, keepdim=True) & unlabeled.valid
            self.monitor.add("conflict", disputed.sum() / unlabeled.valid.sum().clamp(min=1))
        own = targets.pseudo_label(self.label_with(self.network, unlabeled.weak))
        return settle_conflicts(*targets.decided(both), conflict, *own)

    def draw_box(self, patches: Tensor) -> Tensor | None:
        """(B_U, 1, *P) bool of shares 1 - Beta(4, 4), one for the step; ``None`` without a second patch."""
        share = 1 - self.alternation.beta()
        if len(patches) < 2:
            return None
        return draw_clipped_boxes(share, len(patches), patches.shape[2:], self.generator, patches.device)

    # ---- teachers

    def build_auxiliary(self) -> dict[str, nn.Module]:
        hp = self.hyperparameters
        longest = hp.period_steps or max(1, round(hp.period_fraction * self.num_iterations_per_epoch))
        self.generator = own_generator(torch.device("cpu"))
        self.alternation = Alternation(longest, torch.initial_seed() if self.seed is None else self.seed)
        self.teacher = Teacher(self.network_copy(), partial(self.decay, False))
        self.second = Teacher(self.network_copy(), partial(self.decay, True), name=SECOND)
        self.second.join(self)
        return self.teacher.modules() | self.second.modules()

    def decay(self, second: bool, step: int) -> float:
        """Of one of the teachers at this step of training."""
        start = round(self.hyperparameters.copy_fraction * self.num_epochs * self.num_iterations_per_epoch)
        return self.alternation.decay(second, step - start, warmed_up(self.hyperparameters.ema_decay))

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.second.set_mode()

    def after_optimizer_step(self) -> None:
        self.second.update(self.iteration)
        self.alternation.advance()

    # ---- checkpoint

    def auxiliary_state(self) -> dict[str, Any]:
        return super().auxiliary_state() | {"alternation": self.alternation.state()}

    def load_auxiliary_state(self, state: dict[str, Any]) -> None:
        super().load_auxiliary_state(state)
        self.alternation.restore(state["alternation"])
