"""DKUXNet on labelled cases alone: the network, its optimisation and the three losses that need labels.

Source: Wu, Li & Zhang, "Semi-supervised medical image segmentation via query distribution consistency" (ISBI 2024), the
row of 100 % labels; see docs/methods/dkuxnet.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from batchgeneratorsv2.transforms.noise.blank_rectangle import BlankRectangleTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor

from nnunet_ssl.architectures.dkuxnet import CLASS_HEADS, NORMS, DKUXNet, DKUXNetOutput
from nnunet_ssl.architectures.dkuxnet_memory import training_bytes
from nnunet_ssl.architectures.uxnet import arguments_from_plans
from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.data.views import StrongView
from nnunet_ssl.errors import complain
from nnunet_ssl.losses.info_nce import mean_similarities
from nnunet_ssl.losses.query_distribution import log_query_distribution, query_distribution_loss
from nnunet_ssl.training.adamw import nnUNetTrainerAdamW
from nnunet_ssl.training.base import nnUNetTrainerSemiSupervised
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.deep_supervision import resize_to
from nnunet_ssl.training.monitor import COUNT
from nnunet_ssl.training.monitored import OBSERVE_EVERY
from nnunet_ssl.training.network import unwrap
from nnunet_ssl.training.pseudo_labels import annotated_foreground
from nnunet_ssl.training.query_use import group_sizes, used_queries
from nnunet_ssl.training.settings import setting

NETWORK_OPTIONS = (
    "queries", "query_width", "kmax_levels", "layers_per_level", "response_scale", "class_head", "norms", "mask_stride",
    "recompute",
)  # fmt: skip


@dataclass(frozen=True)
class DKUXNetSupervisedHyperparameters:
    queries: int = setting(32, "queries N, the cluster centres", source="128, released code; recommended", low=2)
    groups: int | None = setting(
        None, "query groups G; null: one per class, at most 3; 2 with regions", source="3, released code", low=2
    )
    group_sizes: list[int] | None = setting(  # noqa: RUF009 - a field, as the others
        None,
        "queries per group, background first; null: half, then an eighth and the rest of 3, else equal parts",
        source="16, 4, 108 in the released code; recommended",
    )
    query_width: int = setting(256, "channels of a query", source="256, released code", low=16)
    pixel_width: int = setting(
        64, "first width of the voxels' last embedding", source="256, released code; recommended", low=1
    )
    mask_width: int = setting(32, "its second width", source="128, released code; recommended", low=1)
    kmax_levels: list[int] | None = setting(  # noqa: RUF009
        None,
        "levels of the decoder that update the centres, 0 being full resolution; null: the two above the bottleneck",
        source="released code",
    )
    layers_per_level: int = setting(2, "k-means layers on each of them", source="2, released code", low=1)
    response_scale: float = setting(
        1.0, "initial scale of the responses", source="0.1, released code; recommended", low=0.0
    )
    class_head: str = setting(
        "shared", "one network for each query, or one for all together", source="flat, released", choices=CLASS_HEADS
    )
    norms: str = setting(
        "independent", "norms of the queries: of each sample, or of the batch", source="batch, released", choices=NORMS
    )
    mask_stride: int = setting(1, "2: responses at half the resolution, less memory", choices=(1, 2))
    recompute: bool = setting(False, "less memory, more time: parts of the network run again in the backward pass")
    query_loss_weight: float = setting(
        1.0, "lambda_qd, weight of the query distribution", source="0.1 of a sum, released code; recommended", low=0.0
    )
    assignment_weight: float = setting(
        1.0, "lambda_aux, weight of the k-means layers' assignment", source="recommended", low=0.0
    )


class nnUNetTrainerDKUXNetSupervised(nnUNetTrainerAdamW, nnUNetTrainerSemiSupervised):
    """L = L_seg + lambda_qd L_qd + lambda_aux L_aux on a weak and a strong view of each labelled patch.

    L_seg: nnU-Net's own loss; L_qd: likelihood of the right group of queries; L_aux: the same of every k-means layer,
    which nothing else teaches to assign. The control of nnUNetTrainerDKUXNet: no unlabelled image is read.
    """

    Hyperparameters: ClassVar[type] = DKUXNetSupervisedHyperparameters
    hyperparameters: DKUXNetSupervisedHyperparameters
    card: ClassVar[MethodCard] = MethodCard(
        paper="Wu et al., DKUXNet, ISBI 2024, labelled cases alone",
        predicts="the network, a 3D UX-Net with queries",
        dimensions="2D, 3D",
        extra_memory="two views of every patch, queries; an estimate is logged",
        extra_time="two views of every patch; not measured on a GPU",
    )
    uses_unlabeled: ClassVar[bool] = False
    weak_labeled_view: ClassVar[bool] = True

    # ---- the network

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = False,
    ) -> DKUXNet:
        """:class:`DKUXNet` from any of nnU-Net's U-Nets in the plans, without deep supervision."""
        arguments = cls.network_arguments(plans_manager, configuration_manager)
        return DKUXNet(num_input_channels, num_classes=num_output_channels, **arguments)

    @classmethod
    def network_arguments(cls, plans: PlansManager, configuration: ConfigurationManager) -> dict[str, Any]:
        """The settings block's options of the network; what plans that name it say wins."""
        hp: DKUXNetSupervisedHyperparameters = cls.settings_of(plans.plans).hyperparameters
        options = {name: getattr(hp, name) for name in NETWORK_OPTIONS}
        options["pixel_widths"] = (hp.pixel_width, hp.mask_width)
        return options | arguments_from_plans(
            DKUXNet,
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
        )

    @classmethod
    def refuse(cls, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        super().refuse(plans, configuration, dataset_json)
        manager = PlansManager(plans)
        chosen, labels = manager.get_configuration(configuration), manager.get_label_manager(dataset_json)
        outputs = labels.num_segmentation_heads
        groups = cls.settings_of(plans).hyperparameters.groups
        if labels.has_regions and groups not in (None, 2):
            raise NotImplementedError(f"{cls.__name__} has two query groups with regions, not {groups}")
        try:
            with torch.device("meta"):
                net = cls.build_network_architecture(manager, chosen, 1, outputs)
            net.encoder.levels.check_size(chosen.patch_size)
            cls.queries_per_group(plans, net.centres.shape[1], 2 if labels.has_regions else outputs)
        except (ValueError, TypeError) as error:
            raise complain(f"{cls.__name__} cannot train {configuration} of these plans: {error}.") from error

    @classmethod
    def queries_per_group(cls, plans: dict[str, Any], queries: int, classes: int) -> list[int]:
        """Queries of each group, background first.

        Raises:
            ValueError: more groups than classes, or sizes that are not those of the queries.
        """
        hp: DKUXNetSupervisedHyperparameters = cls.settings_of(plans).hyperparameters
        groups = min(3, classes) if hp.groups is None else hp.groups
        sizes = hp.group_sizes or cls.default_group_sizes(queries, groups)
        fits = len(sizes) == groups <= classes and sum(sizes) == queries
        if not fits or not all(isinstance(n, int) and n > 0 for n in sizes):
            raise ValueError(
                f"{queries} queries of {classes} classes cannot form {groups} groups of sizes {sizes} "
                "(settings queries, groups, group_sizes)"
            )
        return sizes

    @staticmethod
    def default_group_sizes(queries: int, groups: int) -> list[int]:
        return group_sizes(queries, groups)

    def set_up(self) -> None:
        super().set_up()
        self.enable_deep_supervision = False

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """There is none."""

    def initialize(self) -> None:
        super().initialize()
        queries = cast(DKUXNet, unwrap(self.network)).centres.shape[1]
        classes = 2 if self.label_manager.has_regions else self.label_manager.num_segmentation_heads
        sizes = self.queries_per_group(self.plans_manager.plans, queries, classes)
        # in main memory, where reading it waits for no device
        self.group_of_query = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        self.print_to_log_file(
            f"Queries per group: {sizes}. Activations of a step, estimated: {self.activation_memory() / 2**30:.2g} GiB."
        )

    def activation_memory(self) -> float:
        """Bytes, estimated from the plans, of both views of all patches of a step on this rank."""
        patches = self.batch_size + (self.unlabeled_batch_size() if self.uses_unlabeled else 0)
        return training_bytes(
            2 * patches,
            self.configuration_manager.patch_size,
            half=self.grad_scaler is not None,
            input_channels=self.num_input_channels,
            **self.network_arguments(self.plans_manager, self.configuration_manager),
        )

    def make_strong_view(self, anisotropic: bool) -> StrongView:
        """The photometric view and, in three of ten, a blank box of 10 to 25 % of the patch's edges (recommended)."""
        edges = tuple((max(1, n // 10), max(2, n // 4)) for n in self.configuration_manager.patch_size)
        blank = RandomTransform(BlankRectangleTransform(edges, 0.0, 1), 0.3)
        return StrongView((0,) if anisotropic else None, (blank,), self.masked_channels)

    # ---- one step

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> dict[str, Tensor]:
        out = self.forward_views(labeled, unlabeled)
        counted = self.counted_voxels(labeled, unlabeled)
        if self._step % OBSERVE_EVERY == 0:
            self.observe(out, counted, len(labeled.image))
        return self.labeled_terms(out, labeled) | self.contrast_terms(out, counted)

    def contrast_terms(self, out: DKUXNetOutput, counted: Tensor) -> dict[str, Tensor]:
        """None here.

        Args:
            counted: (2B, 1, *P) bool, see :meth:`counted_voxels`.
        """
        return {}

    def forward_views(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> DKUXNetOutput:
        """One forward, so one set of batch statistics, of [weak; strong], the labelled patches first in each."""
        images = torch.cat([labeled.image, unlabeled.weak, labeled.strong, unlabeled.strong])
        return cast(DKUXNetOutput, self.forward(self.network, images))

    def labeled_terms(self, out: DKUXNetOutput, labeled: LabeledBatch) -> dict[str, Tensor]:
        """L_seg, L_qd and L_aux, means over the two views."""
        hp, count, half = self.hyperparameters, len(labeled.image), len(out.logits) // 2
        views = (slice(0, count), slice(half, half + count))
        groups, counted = self.group_labels(labeled)
        share = self.share_of_ranks(counted.sum())

        def query_loss(responses: Tensor) -> Tensor:
            (target,), (mask,) = (resize_to(volume, [responses]) for volume in (groups, counted))
            assert target is not None
            parts = [query_distribution_loss(responses[view], target, self.group_of_query, mask) for view in views]
            return torch.stack(parts).mean() * share

        assignment = torch.stack([query_loss(responses) for responses in out.intermediate]).mean()
        supervised = torch.stack([self.supervised_loss(out.logits[view], labeled.target) for view in views]).mean()
        return {
            "supervised": supervised,
            "query_distribution": self.weigh("query_distribution", query_loss(out.responses), hp.query_loss_weight),
            "assignment": self.weigh("assignment", assignment, hp.assignment_weight),
        }

    def group_labels(self, labeled: LabeledBatch) -> tuple[Tensor, Tensor]:
        """(label merged to the query groups, where it counts), both (B_L, 1, *P), the latter bool."""
        target = cast(Tensor, labeled.target)
        foreground, counted = annotated_foreground(target, self.label_manager)
        last = int(self.group_of_query[-1])
        merged = foreground.long() if self.label_manager.has_regions else target.clamp(0, last).long()
        return merged, counted if labeled.valid is None else counted & labeled.valid

    def counted_voxels(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> Tensor:
        """(2B, 1, *P) bool: neither padding nor ignore label, the same in both views."""
        of_one_view = torch.cat([self.group_labels(labeled)[1], unlabeled.valid])
        return torch.cat([of_one_view, of_one_view])

    def maps(self, out: DKUXNetOutput, background: bool = False) -> dict[str, Tensor]:
        """P and Q (2B, C, *P) in [0, 1], with or without background; of regions, all channels of P are foreground."""
        first = 0 if background else 1
        if self.label_manager.has_regions:
            prediction = out.logits.float().sigmoid()
        else:
            prediction = out.logits.float().softmax(1)[:, first:]
        distribution = log_query_distribution(out.responses, self.group_of_query).exp()[:, first:]
        return {"segmentation": prediction, "query": distribution}

    @torch.no_grad()
    def observe(self, out: DKUXNetOutput, counted: Tensor, labeled: int) -> None:
        """Log how many queries are in use, the scale of the responses, and how similar the views of patches are."""
        layers = torch.stack([used_queries(responses) for responses in out.intermediate])
        self.monitor.add(f"{COUNT}used_queries_of_layers", layers.mean())
        self.monitor.add(f"{COUNT}used_queries", used_queries(out.responses))
        net = cast(DKUXNet, unwrap(self.network))
        self.monitor.add("response_scale", net.predictor.temperature.weight[0])
        for name, maps in self.maps(out).items():
            partners, others = mean_similarities((maps * counted).flatten(1))
            self.monitor.add(f"similarity_of_partners_{name}", partners)
            self.monitor.add(f"similarity_of_others_{name}", others)
        self._observe_foreground("labeled", out.logits[:labeled], counted[:labeled])

    def _observe_foreground(self, name: str, logits: Tensor, counted: Tensor) -> None:
        """Log the mean probability of any foreground over the voxels that count."""
        if self.label_manager.has_regions:
            foreground = logits.float().sigmoid().amax(1, keepdim=True)
        else:
            foreground = 1 - logits.float().softmax(1)[:, :1]
        self.monitor.add(f"predicted_foreground_{name}", (foreground * counted).sum() / counted.sum().clamp(min=1))
