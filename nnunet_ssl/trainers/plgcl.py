"""PLGCL: pseudo-label guided contrastive learning between patches, beside a mean teacher.

Source: Basak & Yin, "Pseudo-label Guided Contrastive Learning for Semi-supervised Medical Image Segmentation" (CVPR
2023); where the paper is silent or differs from its released code, see docs/methods/plgcl.md.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F

from nnunet_ssl.architectures.projection import ProjectionHead, pooled_features
from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.data.key_views import key_views
from nnunet_ssl.data.morphological_view import MorphologicalView
from nnunet_ssl.errors import complain
from nnunet_ssl.losses.consistency import sigmoid_cross_entropy, softmax_cross_entropy
from nnunet_ssl.losses.gaussian_contrast import COVARIANCES, gaussian_info_nce, has_contrast, mean_cosine
from nnunet_ssl.training.base import SemiSupervisedHyperparameters, nnUNetTrainerSemiSupervised
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.class_memory import ClassMemory
from nnunet_ssl.training.deep_supervision import finest
from nnunet_ssl.training.distributed import number_of_ranks, sum_over_ranks
from nnunet_ssl.training.ema import copy_buffers, update_ema
from nnunet_ssl.training.monitor import COUNT, WEIGHT
from nnunet_ssl.training.monitored import OBSERVE_EVERY
from nnunet_ssl.training.network import unwrap
from nnunet_ssl.training.patch_grid import PatchGrid, plan_grid
from nnunet_ssl.training.patch_sampling import (
    ANCHORS,
    MIN_VOXELS,
    SIMILARITIES,
    Selection,
    class_probabilities,
    contrasted_pairs,
    cut_attended,
    label_probabilities,
    score_windows,
    select_windows,
    window_sums,
)
from nnunet_ssl.training.settings import setting
from nnunet_ssl.training.unit_intensity import fixed_ranges, from_unit, intensity_range, to_unit


@dataclass(frozen=True)
class PLGCLHyperparameters(SemiSupervisedHyperparameters):
    consistency_weight: float = setting(0.25, "beta, weight of the consistency", source="0.25, Sec. 4.2", low=0.0)
    contrast_weight: float = setting(
        0.2, "gamma, weight of the contrast after the warm-up", source="0.2, Sec. 4.2", low=0.0
    )
    warmup_epochs: int | None = setting(
        None,
        "epochs without contrast; none: 5 % of the training, at least 1",
        source="50, Sec. 3.4; recommended",
        low=0,
    )
    temperature: float = setting(0.2, "tau", source="0.2, Sec. 4.2", low=0.01, high=10.0)
    covariance_weight: float = setting(4.0, "lambda, at the end of its schedule", source="4, Sec. 4.2", low=0.0)
    covariance_schedule: str = setting(
        "linear",
        "lambda rises after the warm-up, or is constant",
        source="constant; JCL's code and recommended: linear",
        choices=("linear", "constant"),
    )
    covariance: str = setting("full", "covariance of a class", source="full, Eq. 5", choices=COVARIANCES)
    negative_keys: float = setting(
        4096.0, "zeta times the number of usable classes", source="4096, released code", low=1.0
    )
    class_balanced: bool = setting(False, "mean over classes of their mean over queries", source="off, released code")
    neighbours: int = setting(20, "n, positives per anchor", source="20, Sec. 4.2", low=1)
    similarity: str = setting(
        "entropy", "what makes patches of a class alike", source="entropy, Table 3", choices=SIMILARITIES
    )
    anchor: str = setting(
        "confidence", "draw in proportion to Avg, take the largest, or draw any", source="recommended", choices=ANCHORS
    )
    queries: str = setting(
        "all", "patches that are contrasted", source="all, released code; anchor, Sec. 3.1", choices=("all", "anchor")
    )
    max_classes: int = setting(8, "classes sampled per step", source="recommended", low=2)
    patch_size: list[int] | None = setting(  # noqa: RUF009 - a field, as the others
        None, "voxels of a patch per axis; none: about a quarter of the training patch", source="recommended"
    )
    embed_stage: str = setting(
        "auto",
        "encoder stage whose features are embedded: the deepest that fits, or the last",
        source="last; recommended",
        choices=("auto", "bottleneck"),
    )
    confidence_source: str = setting(
        "teacher",
        "network whose probabilities attend unlabelled images",
        source="student, Sec. 3.1; recommended",
        choices=("teacher", "student"),
    )
    key_encoder: str = setting(
        "teacher",
        "network that embeds the keys; the teacher sees them augmented",
        source="teacher, released code; student, Sec. 3.1",
        choices=("teacher", "student"),
    )
    embedding_size: int = setting(128, "D, length of an embedding", source="128, released code", low=2)
    memory_size: int = setting(4096, "keys kept per class", source="4096, released code", low=1)
    min_keys: int = setting(16, "keys from which on a class takes part", source="recommended", low=2)
    ema_decay: float = setting(0.999, "alpha, decay of the teacher", source="0.999, Sec. 4.2", low=0.0, high=1.0)
    ema_rampup: bool = setting(False, "decay min(1 - 1 / (t + 1), alpha) instead of alpha", source="off, Eqs. 9-10")
    consistency_target: str = setting(
        "soft", "the teacher's probabilities or its classes", source="recommended", choices=("soft", "hard")
    )
    supervised_loss: str = setting(
        "nnunet",
        "nnU-Net's own loss, or its cross-entropy alone",
        source="ce, Eq. 7; recommended",
        choices=("nnunet", "ce"),
    )
    predict_with: str = setting(
        "student",
        "the network that is validated and exported",
        source="student, released code",
        choices=("student", "teacher"),
    )


class Patches(NamedTuple):
    """N = M (n + 1) patches of M classes, the anchor of each class first; fillers are not valid.

    Attributes:
        unit: (N, C, *P) attended, in [0, 1].
        low, high: (N, C), ends of the image's range.
        classes: (N,) int64.
        valid: (N,) bool.
    """

    unit: Tensor
    low: Tensor
    high: Tensor
    classes: Tensor
    valid: Tensor

    def images(self) -> Tensor:
        """In the network's units: what is not attended has the darkest value, not the mean."""
        return from_unit(self.unit, self.low, self.high)


class nnUNetTrainerPLGCL(nnUNetTrainerSemiSupervised):
    """L = L_sup(labelled) + beta CE(student(strong), teacher(weak)) + gamma L_PLGCL(patches of both), Eq. 8.

    After each step: teacher <- alpha teacher + (1 - alpha) student, Eqs. 9-10, projection head included.
    """

    Hyperparameters: ClassVar[type] = PLGCLHyperparameters
    hyperparameters: PLGCLHyperparameters
    card: ClassVar[MethodCard] = MethodCard(
        paper="Basak & Yin, PLGCL, CVPR 2023",
        predicts="student (option: teacher)",
        dimensions="2D, 3D",
        extra_memory="one copy of the network, 2 MiB per class, patches",
        extra_time="about 1.6 (3D)",
    )

    @classmethod
    def refuse(cls, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        super().refuse(plans, configuration, dataset_json)
        hp: PLGCLHyperparameters = cls.settings_of(plans).hyperparameters
        manager = PlansManager(plans).get_configuration(configuration)
        strides = manager.network_arch_init_kwargs.get("strides")
        if strides is None:
            raise NotImplementedError(
                f"{cls.__name__} does not support {manager.network_arch_class_name}: it embeds patches with the stages "
                "of a U-Net's encoder. Use plans with such a network (PlainConvUNet, ResidualEncoderUNet)."
            )
        batch = manager.batch_size + (hp.unlabeled_batch_size or manager.batch_size)
        plan_grid(manager.patch_size, strides, batch, hp.neighbours, hp.patch_size, hp.embed_stage)

    # ---- construction

    @property
    def warmup_epochs(self) -> int:
        given = self.hyperparameters.warmup_epochs
        return max(1, round(0.05 * self.num_epochs)) if given is None else given

    @property
    def covariance_weight(self) -> float:
        """lambda now."""
        hp, start = self.hyperparameters, self.warmup_epochs / self.num_epochs
        if hp.covariance_schedule == "constant":
            return hp.covariance_weight
        return hp.covariance_weight * min(max((self.progress - start) / max(1 - start, 1e-9), 0.0), 1.0)

    def build_auxiliary(self) -> dict[str, nn.Module]:
        hp, labels, plan = self.hyperparameters, self.label_manager, self.configuration_manager
        batch = self.batch_size + self.unlabeled_batch_size()
        strides = plan.network_arch_init_kwargs["strides"]
        self.grid = plan_grid(plan.patch_size, strides, batch, hp.neighbours, hp.patch_size, hp.embed_stage)
        channels = check_encoder(unwrap(self.network), self.grid, self.num_input_channels)
        properties = self.plans_manager.plans.get("foreground_intensity_properties_per_channel", {})
        self.ranges = fixed_ranges(plan.normalization_schemes, properties)
        self.classes = labels.num_segmentation_heads + labels.has_regions  # with background
        self.pairs = torch.ones(self.classes, self.classes, dtype=torch.bool, device=self.device)
        if labels.has_regions:
            regions = [r if isinstance(r, (tuple, list)) else (r,) for r in labels.foreground_regions]
            self.pairs = contrasted_pairs(regions).to(self.device)
        rank = dist.get_rank() if self.is_ddp else 0
        self.generator = torch.Generator(self.device).manual_seed(torch.initial_seed() % 2**62 + rank)
        head = ProjectionHead(channels, hp.embedding_size)
        return {
            "teacher": self.network_copy(),
            "head": head,
            "teacher_head": copy.deepcopy(head).requires_grad_(False),
            "memory": ClassMemory(self.classes, hp.memory_size, hp.embedding_size),
        }

    def make_strong_view(self, anisotropic: bool) -> MorphologicalView:
        return MorphologicalView((0,) if anisotropic else None, masked_channels=self.masked_channels)

    def _build_loss(self) -> Any:
        loss = super()._build_loss()
        if self.hyperparameters.supervised_loss == "ce":  # Eq. 7
            getattr(loss, "loss", loss).weight_dice = 0.0
        return loss

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.warmup_epochs >= self.num_epochs:
            self.print_to_log_file(
                f"WARNING: The warm-up of {self.warmup_epochs} epochs is the whole training: there will be no "
                "contrast. Set the hyper-parameter warmup_epochs."
            )

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.auxiliary["teacher"].eval()

    # ---- one step

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> dict[str, Tensor]:
        hp = self.hyperparameters
        outputs, student = self.forward_joint(labeled.image, unlabeled.strong)
        with torch.no_grad():
            teacher = self.forward(self.auxiliary["teacher"], unlabeled.weak)
        self.observe_pseudo_labels(student, teacher, unlabeled.valid)

        distance = sigmoid_cross_entropy if self.label_manager.has_regions else softmax_cross_entropy
        consistency = distance(student, teacher, unlabeled.valid, hard=hp.consistency_target == "hard")  # Eq. 6
        consistency = consistency * self.share_of_ranks(unlabeled.valid.sum())

        weight = hp.contrast_weight if self.current_epoch >= self.warmup_epochs else 0.0
        contrast = consistency.new_zeros(())
        if self.current_epoch >= self.warmup_epochs - 1:  # one epoch earlier, to fill the memory
            contrast = self.contrast(self.sample_patches(labeled, unlabeled, teacher), with_queries=weight > 0)
        return {
            "supervised": self.supervised_loss(outputs, labeled.target),
            "consistency": self.weigh("consistency", consistency, hp.consistency_weight),
            "contrast": self.weigh("contrast", contrast, weight),
        }

    @torch.no_grad()
    def sample_patches(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch, teacher: Tensor) -> Patches:
        """Patches of every class, alike in entropy, from the labelled and unlabelled images together (Sec. 3.1).

        Args:
            labeled, unlabeled: as in :meth:`losses`.
            teacher: logits of the weak view (B_U, K, *P).
        """
        if self.hyperparameters.confidence_source == "student":
            teacher = finest(self.forward(unwrap(self.network), unlabeled.weak))
        guess = None
        if self.label_manager.has_ignore_label:
            guess = self._probabilities(self.forward(self.auxiliary["teacher"], labeled.image))
        elsewhere = torch.ones_like(unlabeled.valid[:1]).expand(len(labeled.image), *unlabeled.valid.shape[1:])
        images = torch.cat([labeled.image, unlabeled.weak])
        confidence = torch.cat([self._label_probabilities(labeled, guess), self._probabilities(teacher)])

        low, high = intensity_range(images, self.ranges)
        unit = to_unit(images, low, high)
        selection = self._select(unit, confidence, torch.cat([elsewhere, unlabeled.valid]))
        if self._step == 0:
            self._observe_purity(labeled, unit[: len(labeled.image)])
        windows, image = selection.windows.flatten(), selection.windows.flatten() // self.grid.number
        classes = selection.classes.repeat_interleave(selection.windows.shape[1])
        attended = cut_attended(unit, confidence, self.grid, windows, classes)
        self.monitor.add(COUNT + "candidates", selection.candidates.sum())
        return Patches(attended, low[image], high[image], classes, selection.valid.flatten())

    def contrast(self, patches: Patches, with_queries: bool = True) -> Tensor:
        """Push the keys of the patches, then contrast the queries with the classes in memory (Eq. 5); their mean.

        Without queries, the memory is filled and the value is 0.
        """
        hp, memory = self.hyperparameters, cast(ClassMemory, unwrap(self.auxiliary["memory"]))
        step = hp.neighbours + 1 if hp.queries == "anchor" else 1
        asked = Patches(*(values[::step] for values in patches))
        queries = self._embed(self.network, self.auxiliary["head"], asked.images()) if with_queries else None
        with torch.no_grad():
            memory.push(self._keys(patches, queries if step == 1 else None), patches.classes, patches.valid)
            means, covariances = memory.statistics(hp.covariance)
            usable = memory.counts >= hp.min_keys
            self._observe_memory(memory, means, usable)
        if queries is None:
            return means.new_zeros(())

        classes, enters = asked.classes, usable & self.pairs[asked.classes]
        zeta = hp.negative_keys / usable.sum().clamp(min=1)
        losses = gaussian_info_nce(
            queries, classes, means, covariances, enters, hp.temperature, self.covariance_weight, zeta
        )
        counted = asked.valid & has_contrast(classes, enters)
        number = sum_over_ranks((F.one_hot(classes, self.classes) * counted[:, None]).sum(0))
        if hp.class_balanced:
            weight = 1 / (number[classes] * (number > 0).sum()).clamp(min=1)
        else:
            weight = 1 / number.sum().clamp(min=1)
        return torch.where(counted, losses * weight, 0.0).sum() * number_of_ranks()  # DDP averages

    def after_optimizer_step(self) -> None:
        limit = self.hyperparameters.ema_decay
        decay = min(1 - 1 / (self.iteration + 1), limit) if self.hyperparameters.ema_rampup else limit
        teacher, network = unwrap(self.auxiliary["teacher"]), unwrap(self.network)
        update_ema(teacher, network, decay)
        copy_buffers(teacher, network)
        update_ema(unwrap(self.auxiliary["teacher_head"]), unwrap(self.auxiliary["head"]), decay)

    # ---- parts of a step

    def _probabilities(self, logits: Tensor) -> Tensor:
        return class_probabilities(logits, self.label_manager.has_regions)

    def _label_probabilities(self, labeled: LabeledBatch, guess: Tensor | None) -> Tensor:
        labels = self.label_manager
        return label_probabilities(finest(labeled.target), self.classes, labels.has_regions, labels.ignore_label, guess)

    def _select(self, unit: Tensor, confidence: Tensor, valid: Tensor) -> Selection:
        hp = self.hyperparameters
        scores = score_windows(unit, confidence, valid, self.grid, self.label_manager.has_regions)
        return select_windows(
            scores, unit, confidence, self.grid, self.generator,
            neighbours=hp.neighbours, max_classes=hp.max_classes, anchor=hp.anchor, similarity=hp.similarity,
        )  # fmt: skip

    def _embed(self, network: nn.Module, head: nn.Module, images: Tensor) -> Tensor:
        """(N, D), unit length. The encoder runs outside torch.compile and DDP, whose gradients meet all the same."""
        encoder: Any = unwrap(network).encoder
        return head(self.forward(lambda x: pooled_features(encoder, x, self.grid.stage), images))  # type: ignore[arg-type]

    def _keys(self, patches: Patches, queries: Tensor | None) -> Tensor:
        """One key per patch: by the teacher from an augmented copy, or by the student as it is."""
        if self.hyperparameters.key_encoder == "teacher":
            views = patches._replace(unit=key_views(patches.unit, self.generator))
            return self._embed(self.auxiliary["teacher"], self.auxiliary["teacher_head"], views.images())
        return (
            self._embed(self.network, unwrap(self.auxiliary["head"]), patches.images()) if queries is None else queries
        )

    # ---- monitors

    def _observe_memory(self, memory: ClassMemory, means: Tensor, usable: Tensor) -> None:
        self.monitor.add(WEIGHT + "covariance", self.covariance_weight)
        if self._step % OBSERVE_EVERY:
            return
        self.monitor.add("mean_cosine", *mean_cosine(means, usable))
        for k, (count, norm) in enumerate(zip(memory.counts, means.norm(dim=1), strict=True)):
            self.monitor.add(f"{COUNT}keys_{k}", count)
            self.monitor.add(f"mean_norm_{k}", norm)

    def _observe_purity(self, labeled: LabeledBatch, unit: Tensor) -> None:
        """Share of the windows chosen by the teacher's probabilities of labelled images that do show their class."""
        guess = self._probabilities(self.forward(self.auxiliary["teacher"], labeled.image))
        truth = self._label_probabilities(labeled, torch.zeros_like(guess))
        chosen = self._select(unit, guess, truth.amax(1, keepdim=True))  # where there is a label
        voxels = window_sums(truth, self.grid).transpose(0, 1).flatten(1)[chosen.classes]
        pure = (voxels.gather(1, chosen.windows) >= MIN_VOXELS) & chosen.valid
        number = chosen.valid.sum()
        self.monitor.add("purity", pure.sum() / number.clamp(min=1), number)

    # ---- checkpoint

    def auxiliary_state(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state(), "generator_device": self.device.type}

    def load_auxiliary_state(self, state: dict[str, Any]) -> None:
        if self.is_ddp and dist.get_rank() > 0:  # the file holds the state of rank 0
            ahead = self.current_epoch * dist.get_world_size()
            self.generator.manual_seed(self.generator.initial_seed() + ahead)
        elif state["generator_device"] == self.device.type:
            self.generator.set_state(state["generator"].cpu())

    def predictor(self) -> nn.Module:
        return self.auxiliary["teacher"] if self.hyperparameters.predict_with == "teacher" else self.network


def check_encoder(network: nn.Module, grid: PatchGrid, channels: int) -> int:
    """Embed a dummy patch in both modes; the number of features of the embedded stage.

    Raises:
        NotImplementedError: the network has no encoder of stages.
        SemiSupervisedError: the encoder cannot take such patches.
    """
    if not isinstance(getattr(getattr(network, "encoder", None), "stages", None), nn.Sequential):
        raise NotImplementedError(
            f"PLGCL does not support {type(network).__name__}: it embeds patches with the stages of a U-Net's encoder."
        )
    encoder = copy.deepcopy(cast(nn.Module, network.encoder))  # a batch norm would count the dummy
    device = next(encoder.parameters()).device
    try:
        with torch.no_grad():
            for training in (True, False):
                features = pooled_features(
                    encoder.train(training), torch.zeros(1, channels, *grid.size, device=device), grid.stage
                )
    except (ValueError, RuntimeError) as error:
        raise complain(
            f"The encoder cannot embed patches of {list(grid.size)} voxels at stage {grid.stage}: {error}",
            remedy="Set the hyper-parameter patch_size to a larger multiple of the encoder's strides.",
        ) from error
    return features.shape[1]
