"""Mean Teacher (Tarvainen & Valpola, NeurIPS 2017): consistency of a student with the moving average of its weights."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.losses.consistency import sigmoid_mse, softmax_mse
from nnunet_ssl.trainers.cutmix_trainer import MixesPatches
from nnunet_ssl.trainers.mean_teacher_settings import MeanTeacherHyperparameters
from nnunet_ssl.training.base import Terms, nnUNetTrainerSemiSupervised
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.deep_supervision import finest
from nnunet_ssl.training.distributed import voxel_mean
from nnunet_ssl.training.teacher import Teacher, warmed_up


class nnUNetTrainerMeanTeacher(MixesPatches, nnUNetTrainerSemiSupervised):
    """L = L_sup(labelled) + w r(progress) mean_voxels,classes (p_student - p_teacher)^2 on the unlabelled patches.

    After each step: teacher <- a teacher + (1 - a) student with a = min(1 - 1 / (t + 1), 0.99).
    """

    Hyperparameters: ClassVar[type] = MeanTeacherHyperparameters
    hyperparameters: MeanTeacherHyperparameters
    card: ClassVar[MethodCard] = MethodCard(
        paper="Tarvainen & Valpola, Mean Teacher, NeurIPS 2017", predicts="student (option: teacher)",
        dimensions="2D, 3D", extra_memory="one copy of the network", extra_time="about 1.2",
    )  # fmt: skip
    teacher: Teacher

    def build_auxiliary(self) -> dict[str, nn.Module]:
        modules = super().build_auxiliary()
        self.teacher = Teacher(self.network_copy(), warmed_up(self.hyperparameters.ema_decay), training_mode=True)
        return modules | self.teacher.modules()

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> Terms:
        hp = self.hyperparameters
        if hp.consistency_weight == 0:
            return Terms(supervised=self.supervised_loss(self.forward(self.network, labeled.image), labeled.target))
        weight = self.held(hp.consistency_weight * self.ramp(hp.rampup_fraction))
        box = self.cutmix.draw(unlabeled.weak)
        images = self.cutmix.paste(getattr(unlabeled, hp.student_view), box)
        outputs, other = self.forward_joint(labeled.image, images)
        student, teacher = finest(other), self.teacher(self.with_noise(unlabeled.weak, hp.noise_std, hp.noise_clip))
        self.observe_pseudo_labels(student, teacher, unlabeled.valid, box)
        terms = Terms(supervised=self.supervised_loss(outputs, labeled.target))
        followed = self.followed(teacher, unlabeled) if weight > 0 else unlabeled.valid
        maps = (self.cutmix.paste(m, box) for m in (teacher, followed))
        terms.add("consistency", self.consistency(student, *maps), weight)
        return terms

    def followed(self, teacher: Tensor, unlabeled: UnlabeledBatch) -> Tensor:
        """Voxels (B_U, 1, *P) bool of the unmixed patches where the student follows the teacher's logits."""
        return unlabeled.valid

    def consistency(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        """Distance of the student's logits (B_U, K, *P) from the teacher's, over the voxels of the mask."""
        return voxel_mean(sigmoid_mse if self.targets.has_regions else softmax_mse, student, teacher, mask=mask)
