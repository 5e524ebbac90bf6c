"""PLGCL: pseudo-label guided contrastive learning between patches, beside a mean teacher.

Source: Basak & Yin, "Pseudo-label Guided Contrastive Learning for Semi-supervised Medical Image Segmentation" (CVPR
2023); where the paper is silent or differs from its released code, see docs/methods/plgcl.md.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor, nn

from nnunet_ssl.architectures.projection import ProjectionHead, pooled_features
from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.data.strong_view import StrongView
from nnunet_ssl.losses.consistency import sigmoid_cross_entropy, softmax_cross_entropy
from nnunet_ssl.losses.gaussian_contrast import gaussian_info_nce, has_contrast
from nnunet_ssl.trainers.plgcl.class_memory import ClassMemory
from nnunet_ssl.trainers.plgcl.confidence_maps import class_pairs
from nnunet_ssl.trainers.plgcl.encoder_check import check_encoder
from nnunet_ssl.trainers.plgcl.key_views import key_views
from nnunet_ssl.trainers.plgcl.morphological_view import MorphologicalView
from nnunet_ssl.trainers.plgcl.patch_monitor import observe_candidates, observe_memory
from nnunet_ssl.trainers.plgcl.patch_sampler import Patches
from nnunet_ssl.trainers.plgcl.settings import PLGCLHyperparameters
from nnunet_ssl.training.base import Terms, nnUNetTrainerSemiSupervised
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.checkpoint import own_generator
from nnunet_ssl.training.deep_supervision import finest
from nnunet_ssl.training.distributed import masked_mean_over_ranks, voxel_mean
from nnunet_ssl.training.monitor import COUNT
from nnunet_ssl.training.network import unwrap
from nnunet_ssl.training.ramps import linear_rampup
from nnunet_ssl.training.teacher import Teacher, constant, recent
from nnunet_ssl.training.watch import WEIGHT


class nnUNetTrainerPLGCL(nnUNetTrainerSemiSupervised):
    """L = L_sup(labelled) + beta CE(student(strong), teacher(weak)) + gamma L_PLGCL(patches of both), Eq. 8.

    After each step: teacher <- alpha teacher + (1 - alpha) student, Eqs. 9-10, projection head included.
    """

    Hyperparameters: ClassVar[type] = PLGCLHyperparameters
    hyperparameters: PLGCLHyperparameters
    teacher: Teacher
    views: ClassVar[tuple[str, ...]] = ("labeled.image", "labeled.weak", "unlabeled.weak", "unlabeled.strong")
    card: ClassVar[MethodCard] = MethodCard(
        paper="Basak & Yin, PLGCL, CVPR 2023",
        predicts="student (option: teacher)",
        dimensions="2D, 3D",
        extra_memory="one copy of the network, 2 MiB per class, patches",
        extra_time="1.3 (3D), 1.2 (2D) in operations; about 1.7 (3D), 1.6 (2D) on a CPU",
    )

    # ---- one step

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> Terms:
        hp, terms, consistent = self.hyperparameters, Terms(), self.hyperparameters.consistency_weight > 0
        contrasts = hp.contrast_weight > 0 and self.current_epoch >= self.warmup_epochs - 1  # one epoch for the memory
        if consistent:
            outputs, other = self.forward_joint(labeled.image, unlabeled.strong)
        else:
            outputs, other = self.forward(self.network, labeled.image), None
        terms["supervised"] = self.supervised_loss(outputs, labeled.target)  # Eq. 7
        if self.step == 0:
            self.observe_purity(labeled)
        if not (consistent or contrasts or (hp.contrast_weight > 0 and self.observing)):
            return terms
        teacher = self.teacher(unlabeled.weak)
        if self.observing:
            student = self.label_with(self.network, unlabeled.strong) if other is None else finest(other)
            self.observe_pseudo_labels(student, teacher, unlabeled.valid)
        if other is not None:
            distance = sigmoid_cross_entropy if self.targets.has_regions else softmax_cross_entropy
            hard = hp.consistency_target == "hard"
            consistency = voxel_mean(distance, finest(other), teacher, mask=unlabeled.valid, hard=hard)  # Eq. 6
            terms.add("consistency", consistency, self.held(hp.consistency_weight))
        begun = contrasts and self.current_epoch >= self.warmup_epochs
        contrast = teacher.new_zeros(())
        if contrasts:
            contrast = self.contrast(self.sample_patches(labeled, unlabeled, teacher), with_queries=begun)
        terms.add("contrast", contrast, self.held(hp.contrast_weight) if begun else 0.0)
        return terms

    @torch.no_grad()
    def sample_patches(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch, teacher: Tensor) -> Patches:
        """Patches of every class, alike in entropy, from the labelled and unlabelled images together (Eqs. 1-3).

        Args:
            labeled, unlabeled: as in :meth:`losses`.
            teacher: logits of the weak view (B_U, K, *P).
        """
        sampler, guess, hp = self.sampler, None, self.hyperparameters
        if hp.confidence_source == "student":
            teacher = self.label_with(self.network, unlabeled.weak)
        if self.label_manager.has_ignore_label:
            guess = sampler.confidence(self.teacher(labeled.weak))
        confidence = sampler.joint_confidence(labeled.target, teacher, guess)
        # both in their weak view: nnU-Net's intensity augmentation of labelled images alone would set entropies apart
        images, valid = torch.cat([labeled.weak, unlabeled.weak]), torch.cat([labeled.valid, unlabeled.valid])
        patches, candidates = sampler.sample(images, confidence, valid)
        self.monitor.add(COUNT + "candidates", candidates.sum())
        if self.observing:
            observe_candidates(self.monitor, candidates, hp.neighbours)
        return patches

    @torch.no_grad()
    def observe_purity(self, labeled: LabeledBatch) -> None:
        """Log which share of the windows chosen by the teacher's probabilities of labelled images show their class."""
        guess = self.sampler.confidence(self.teacher(labeled.weak))
        self.monitor.add("purity", *self.sampler.purity(labeled.weak, labeled.target, guess))

    def contrast(self, patches: Patches, with_queries: bool = True) -> Tensor:
        """Push the keys of the patches, then contrast the queries with the classes in memory (Eq. 5); their mean.

        Without queries, the memory is filled and the value is 0.
        """
        hp, memory = self.hyperparameters, cast(ClassMemory, unwrap(self.auxiliary["memory"]))
        queries = self.embed(self.network, self.auxiliary["head"], patches) if with_queries else None
        with torch.no_grad():
            memory.push(self.keys(patches, queries), patches.classes, patches.valid)
            means, covariances = memory.statistics(hp.covariance)
            usable = memory.counts >= hp.min_keys
        self.monitor.add(WEIGHT + "covariance", self.covariance_weight)
        if self.observing:
            observe_memory(self.monitor, memory, means, usable)
        if queries is None:
            return means.new_zeros(())

        step = hp.neighbours + 1 if hp.queries == "anchor" else 1
        asked = Patches(*(values[::step] for values in patches))
        enters = usable & self.pairs[asked.classes]
        zeta = hp.negative_keys / usable.sum().clamp(min=1)
        given = (queries[::step], asked.classes, means, covariances, enters, hp.temperature)
        losses = gaussian_info_nce(*given, self.covariance_weight, zeta)
        counted = asked.valid & has_contrast(asked.classes, enters)
        if self.observing:  # without covariances: log(1 + zeta (K - 1)) where embeddings are all alike
            bare, alike = gaussian_info_nce(*given, 0.0, zeta), (1 + zeta * (usable.sum() - 1)).log()
            self.monitor.add("contrast_collapse", (bare * counted).sum() / counted.sum().clamp(min=1) / alike - 1)
        return masked_mean_over_ranks(losses, counted, asked.classes, memory.classes, hp.class_balanced)

    def embed(self, network: nn.Module, head: nn.Module, patches: Patches) -> Tensor:
        """(N, D), unit length. The encoder runs outside torch.compile and DDP, whose gradients meet all the same."""
        encoder: Any = unwrap(network).encoder
        features = self.forward(lambda x: pooled_features(encoder, x, self.grid.stage), patches.images())
        return head(features, patches.valid)

    def keys(self, patches: Patches, queries: Tensor | None) -> Tensor:
        """One key per patch: by the teacher from an augmented copy, or by the student as it is (its query, if any)."""
        if self.hyperparameters.key_encoder == "teacher":
            views = patches._replace(unit=key_views(patches.unit, self.sampler.generator))
            return self.embed(self.auxiliary["teacher"], self.auxiliary["teacher_head"], views)
        return self.embed(self.network, unwrap(self.auxiliary["head"]), patches) if queries is None else queries

    # ---- schedules

    @property
    def warmup_epochs(self) -> int:
        given = self.hyperparameters.warmup_epochs
        return max(1, round(0.05 * self.num_epochs)) if given is None else given

    @property
    def covariance_weight(self) -> float:
        """lambda now."""
        hp = self.hyperparameters
        if hp.covariance_schedule == "constant":
            return hp.covariance_weight
        warmup = self.warmup_epochs / self.num_epochs
        return hp.covariance_weight * self.ramp(1 - warmup, warmup, curve=linear_rampup)

    # ---- construction

    @classmethod
    def check_supported(cls, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        super().check_supported(plans, configuration, dataset_json)
        hp: PLGCLHyperparameters = cls.settings_of(plans).hyperparameters
        plan = PlansManager(plans).get_configuration(configuration)
        hp.grid(plan, plan.batch_size + (hp.unlabeled_batch_size or plan.batch_size))

    def build_auxiliary(self) -> dict[str, nn.Module]:
        hp, plan = self.hyperparameters, self.configuration_manager
        self.grid = hp.grid(plan, self.batch_size + self.streams.unlabeled_batch_size)
        channels = check_encoder(unwrap(self.network), self.grid, self.num_input_channels, pooled_features)
        self.generator = own_generator(self.device)
        self.sampler = hp.sampler(self.plans_manager, plan, self.label_manager, self.grid, self.generator)
        self.pairs = class_pairs(self.label_manager).to(self.device)
        head = ProjectionHead(channels, hp.embedding_size)
        decay = recent(hp.ema_decay) if hp.ema_rampup else constant(hp.ema_decay)  # Eqs. 9-10
        self.teacher = Teacher(self.network_copy(), decay, {"head": head})
        memory = ClassMemory(len(self.pairs), hp.memory_size, hp.embedding_size)
        return {"head": head, **self.teacher.modules(), "memory": memory}

    def make_strong_view(self, anisotropic: bool) -> StrongView:
        return MorphologicalView((0,) if anisotropic else None, masked_channels=self.streams.masked_channels)

    def _build_loss(self) -> Any:
        loss = super()._build_loss()
        if self.hyperparameters.supervised_loss == "ce":
            getattr(loss, "loss", loss).weight_dice = 0.0
        return loss

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.warmup_epochs >= self.num_epochs:
            self.print_to_log_file(
                f"WARNING: The warm-up of {self.warmup_epochs} epochs is the whole training run: there will be no "
                "contrast. Set the hyper-parameter warmup_epochs."
            )
