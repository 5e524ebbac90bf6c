"""Mean Teacher: consistency between a student and the moving average of its weights.

Source: Tarvainen & Valpola, "Mean teachers are better role models" (NeurIPS 2017); constants of the segmentation
version in UA-MT (Yu et al., MICCAI 2019) and SSL4MIS.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.losses.consistency import sigmoid_mse, softmax_mse
from nnunet_ssl.trainers.mean_teacher_settings import MeanTeacherHyperparameters
from nnunet_ssl.training.base import Terms, nnUNetTrainerSemiSupervised
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.deep_supervision import finest
from nnunet_ssl.training.distributed import voxel_mean
from nnunet_ssl.training.teacher import Teacher, warmed_up


class nnUNetTrainerMeanTeacher(nnUNetTrainerSemiSupervised):
    """L = L_sup(labelled) + w r(progress) mean_voxels,classes (p_student - p_teacher)^2 on the unlabelled patches.

    After each step: teacher <- a teacher + (1 - a) student with a = min(1 - 1 / (t + 1), 0.99).
    """

    Hyperparameters: ClassVar[type] = MeanTeacherHyperparameters
    hyperparameters: MeanTeacherHyperparameters
    card: ClassVar[MethodCard] = MethodCard(
        paper="Tarvainen & Valpola, Mean Teacher, NeurIPS 2017",
        predicts="student (option: teacher)",
        dimensions="2D, 3D",
        extra_memory="one copy of the network",
        extra_time="about 1.2",
    )
    teacher: Teacher

    def build_auxiliary(self) -> dict[str, nn.Module]:
        self.teacher = Teacher(self.network_copy(), warmed_up(self.hyperparameters.ema_decay), training_mode=True)
        return self.teacher.modules()

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> Terms:
        hp = self.hyperparameters
        outputs, other = self.forward_joint(labeled.image, getattr(unlabeled, hp.student_view))
        student, teacher = finest(other), self.teacher(self.with_noise(unlabeled.weak, hp.noise_std, hp.noise_clip))
        self.observe_pseudo_labels(student, teacher, unlabeled.valid)

        terms = Terms(supervised=self.supervised_loss(outputs, labeled.target))
        terms.add("consistency", self.consistency(student, teacher, unlabeled), self.consistency_weight)
        return terms

    @property
    def consistency_weight(self) -> float:
        """At this moment of training."""
        return self.held(self.hyperparameters.consistency_weight * self.ramp(self.hyperparameters.rampup_fraction))

    def consistency(self, student: Tensor, teacher: Tensor, unlabeled: UnlabeledBatch) -> Tensor:
        """Distance of the student's logits (B_U, K, *P) from the teacher's."""
        distance = sigmoid_mse if self.targets.has_regions else softmax_mse
        return voxel_mean(distance, student, teacher, mask=unlabeled.valid)
