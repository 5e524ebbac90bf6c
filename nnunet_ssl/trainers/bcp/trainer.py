"""BCP: labelled and unlabelled patches pasted into each other, with labels and pseudo-labels side by side.

Source: Bai et al., "Bidirectional Copy-Paste for Semi-Supervised Medical Image Segmentation" (CVPR 2023) and its code.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.data.mixing import CutMix, axes_cut, draw_boxes, mix
from nnunet_ssl.trainers.bcp.components import LargestPieces
from nnunet_ssl.trainers.bcp.settings import BCPHyperparameters
from nnunet_ssl.training.base import Terms, nnUNetTrainerSemiSupervised
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.checkpoint import own_generator
from nnunet_ssl.training.deep_supervision import finest, resize_to
from nnunet_ssl.training.teacher import Teacher


class nnUNetTrainerBCP(nnUNetTrainerSemiSupervised):
    """L = l(mixture, labels | labelled region) + u l(mixture, pseudo-labels | the rest); at first labelled pairs alone.

    l: cross-entropy and Dice. In every second pair the labelled patch is in the box, in the others around it.
    """

    Hyperparameters: ClassVar[type] = BCPHyperparameters
    hyperparameters: BCPHyperparameters
    labeled_view: ClassVar[str] = "image"
    card: ClassVar[MethodCard] = MethodCard(
        paper="Bai et al., BCP, CVPR 2023",
        predicts="student (option: teacher)",
        dimensions="2D, 3D",
        extra_memory="one copy of the network, half the batch",
        extra_time="about 0.7",
    )
    teacher: Teacher
    generator: torch.Generator

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> Terms:
        hp, terms = self.hyperparameters, Terms()
        images, target = getattr(labeled, self.labeled_view), labeled.target
        if self.progress < hp.pretrain_fraction:
            return Terms(supervised=self.of_labeled_pairs(images, target))
        seen, valid = (repeated(x, len(images)) for x in (getattr(unlabeled, hp.student_view), unlabeled.valid))
        region = None
        if hp.mix:
            box = self.draw_boxes(images)
            region = torch.stack([~b if pair % 2 == 0 else b for pair, b in enumerate(box)])  # of the labelled patch
            seen, valid = mix(images, seen, region), valid & ~region
        if hp.sup_unmixed or not hp.mix:
            own, student = self.forward_joint(images, seen)
            terms["unmixed" if hp.mix else "supervised"] = self.supervised_loss(own, target)
        else:
            student = self.forward(self.network, seen)
        if hp.mix:
            maps = (self.targets.labels(target), region, self.targets.annotated(target))
            terms["supervised"] = self.deep_supervised(self.of_region, student, *maps)
        if hp.unlabeled_weight > 0:
            teacher = self.teacher(repeated(unlabeled.weak, len(images)))
            pseudo = self.largest(self.targets.decide(teacher))
            loss = self.deep_supervised(self.of_region, student, pseudo, valid, None)
            terms.add("pseudo_label", loss, self.held(hp.unlabeled_weight))
            first, pasted = slice(len(unlabeled)), None if region is None else region[: len(unlabeled)]
            self.observe_pseudo_labels(finest(student)[first], teacher[first], unlabeled.valid, pasted)
        return terms

    def of_labeled_pairs(self, images: Tensor, target: Any) -> Tensor:
        """nnU-Net's loss of each labelled patch with a box from the next one, labels included."""
        if not self.hyperparameters.mix:
            return self.supervised_loss(self.forward(self.network, images), target)
        box = self.draw_boxes(images)
        outputs = self.forward(self.network, CutMix.paste(images, box))
        if not isinstance(target, list):
            return self.supervised_loss(outputs, CutMix.paste(target, box))
        boxes = resize_to(box, outputs)
        return self.supervised_loss(outputs, [CutMix.paste(t, b) for t, b in zip(target, boxes, strict=True)])

    def of_region(self, logits: Tensor, label: Tensor, region: Tensor, counted: Tensor | None) -> Tensor:
        """Cross-entropy, a mean over the region, and Dice of the region's voxels."""
        kept = region if counted is None else region & counted
        return self.targets.pseudo_supervision("ce+dice", logits, label, kept, kept)

    def draw_boxes(self, patches: Tensor) -> Tensor:
        """(B, 1, *P) bool with the same edges everywhere."""
        hp, size = self.hyperparameters, patches.shape[2:]
        share, number = hp.box_edge ** len(axes_cut(size)), 1 if hp.box_per == "batch" else len(patches)
        box = draw_boxes(number, size, (share, share), 1.0, 1.0, self.generator, patches.device)
        return box.expand(len(patches), *box.shape[1:])

    # ---- construction

    def build_auxiliary(self) -> dict[str, nn.Module]:
        self.generator = own_generator(torch.device("cpu"))
        self.largest = LargestPieces(self.targets, self.hyperparameters.largest_component == "on")
        self.teacher = Teacher(self.network_copy(), self.decay)
        return self.teacher.modules()

    def decay(self, step: int) -> float:
        """0, a copy of the student, until the teacher begins."""
        steps = self.num_epochs * self.num_iterations_per_epoch
        return self.hyperparameters.ema_decay if step >= self.hyperparameters.pretrain_fraction * steps else 0.0

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.hyperparameters.largest_component == "auto":
            slices = len(self.configuration_manager.patch_size) == 2
            names = self.largest.choose(self.preprocessed_dataset_folder, self.do_split()[0], slices)
            self.print_to_log_file("Pseudo-labels keep the largest piece of:", ", ".join(names) or "no class")


def repeated(maps: Tensor, number: int) -> Tensor:
    """As many samples as asked for, from the first on, and again from the first where there are too few."""
    return maps.repeat(-(-number // len(maps)), *[1] * (maps.ndim - 1))[:number]
