"""DKUXNet on labelled cases alone: the network, its optimisation and the three losses that need labels.

Source: Wu, Li & Zhang, "Semi-supervised medical image segmentation via query distribution consistency" (ISBI 2024), the
row of 100 % labels; see docs/methods/dkuxnet.md.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from batchgeneratorsv2.transforms.noise.blank_rectangle import BlankRectangleTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor

from nnunet_ssl.architectures.dkuxnet import DKUXNet, DKUXNetOutput, levels_of_weights
from nnunet_ssl.architectures.dkuxnet_memory import training_bytes
from nnunet_ssl.architectures.recompute import worth_it
from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.data.strong_view import StrongView
from nnunet_ssl.errors import complain
from nnunet_ssl.losses.info_nce import mean_similarities
from nnunet_ssl.losses.query_distribution import log_query_distribution, query_distribution_loss
from nnunet_ssl.trainers.dkuxnet.network import check_groups, group_sizes, network_arguments
from nnunet_ssl.trainers.dkuxnet.query_perplexity import query_perplexity
from nnunet_ssl.trainers.dkuxnet.settings import NETWORK_OPTIONS, DKUXNetSupervisedHyperparameters
from nnunet_ssl.training.base import Terms, nnUNetTrainerSemiSupervised
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.deep_supervision import resize_to
from nnunet_ssl.training.distributed import voxel_mean
from nnunet_ssl.training.monitor import COUNT
from nnunet_ssl.training.network import tried_on_plans, unwrap
from nnunet_ssl.training.recipe import ADAMW_FOR_TRANSFORMERS, Recipe
from nnunet_ssl.training.settings import BLOCK, settings_name


class nnUNetTrainerDKUXNetSupervised(nnUNetTrainerSemiSupervised):
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
        extra_time="2.26 (3D), 2.55 (2D) in operations",
    )
    recipe: ClassVar[Recipe] = Recipe(ADAMW_FOR_TRANSFORMERS, {"adamw": ADAMW_FOR_TRANSFORMERS})
    views: ClassVar[tuple[str, ...]] = ("labeled.weak", "labeled.strong", "unlabeled.weak", "unlabeled.strong")
    uses_unlabeled: ClassVar[bool] = False
    published_groups: ClassVar[int] = 0
    """So many query groups are allowed with fewer classes too; a group without a class is never a target."""
    requires_plain_logits: ClassVar[bool] = False
    has_deep_supervision: ClassVar[bool] = False

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
        arguments = network_arguments(cls.settings_of(plans_manager.plans).hyperparameters, configuration_manager)
        return DKUXNet(num_input_channels, num_classes=num_output_channels, **arguments)

    @classmethod
    def check_supported(cls, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        super().check_supported(plans, configuration, dataset_json)
        manager = PlansManager(plans)
        chosen, labels = manager.get_configuration(configuration), manager.get_label_manager(dataset_json)
        outputs, hp = labels.num_segmentation_heads, cls.settings_of(plans).hyperparameters
        if labels.has_regions and hp.groups not in (None, 2):
            raise NotImplementedError(f"{cls.__name__} has two query groups with regions, not {hp.groups}")
        with tried_on_plans(cls.__name__, configuration):
            net = cls.build_network_architecture(manager, chosen, 1, outputs)
            net.encoder.levels.check_size(chosen.patch_size)
            cls.queries_per_group(hp, net.centres.shape[1], outputs, labels.has_regions)

    @classmethod
    def queries_per_group(
        cls, hp: DKUXNetSupervisedHyperparameters, queries: int, outputs: int, regions: bool
    ) -> list[int]:
        """Queries of each group, background first; ValueError where they cannot form them."""
        most = 2 if regions else max(outputs, cls.published_groups)
        groups = hp.groups or min(most, 3)
        sizes = hp.group_sizes or cls.default_group_sizes(queries, groups)
        check_groups(sizes, groups, queries, most)
        return sizes

    @staticmethod
    def default_group_sizes(queries: int, groups: int) -> list[int]:
        return group_sizes(queries, groups)

    def settings_in_force(self) -> dict[str, Any]:
        """With the network's options as they are: what plans that name it say wins over the settings block."""
        settings = super().settings_in_force()
        built = network_arguments(self.hyperparameters, self.configuration_manager)
        first, second = built["pixel_widths"]
        settings["hyperparameters"] |= {name: built[name] for name in NETWORK_OPTIONS}
        settings["hyperparameters"] |= {"pixel_width": first, "mask_width": second}
        return settings

    def initialize(self) -> None:
        super().initialize()
        net = cast(DKUXNet, unwrap(self.network))
        queries = net.centres.shape[1]
        sizes = self.group_sizes = self.queries_per_group(
            self.hyperparameters, queries, self.targets.channels, self.targets.has_regions
        )
        # in main memory, where reading it waits for no device
        self.group_of_query = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        self.print_to_log_file(
            f"Queries per group: {sizes}. k-means layers on the levels {net.kmax_levels}. "
            f"Activations of a step, estimated: {self.activation_memory() / 2**30:.2g} GiB."
        )

    def activation_memory(self) -> float:
        """Bytes, estimated from the plans, of both views of all patches of a step on this rank."""
        arguments = network_arguments(self.hyperparameters, self.configuration_manager)
        arguments["recompute"] = worth_it(arguments["recompute"], self.device)
        return training_bytes(
            2 * (self.batch_size + self.streams.unlabeled_batch_size),
            self.configuration_manager.patch_size,
            half=self.grad_scaler is not None,
            untaught=2 * self.streams.unlabeled_batch_size,
            input_channels=self.num_input_channels,
            **arguments,
        )

    def make_strong_view(self, anisotropic: bool) -> StrongView:
        """The photometric view and, in three of ten, a blank box of 10 to 25 % of the patch's edges (recommended)."""
        edges = tuple((-(-n // 10), max(1, n // 4) + 1) for n in self.configuration_manager.patch_size)  # end excluded
        blank = RandomTransform(BlankRectangleTransform(edges, 0.0, 1), 0.3)
        return StrongView((0,) if anisotropic else None, (blank,), self.streams.masked_channels)

    # ---- checkpoints

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Continue from a checkpoint.

        Raises:
            SemiSupervisedError: its k-means layers work on other levels than these plans give; see also the base.
        """
        if not self.was_initialized:
            self.initialize()
        saved = torch.load(filename_or_checkpoint, map_location="cpu", mmap=True, weights_only=False)
        net = cast(DKUXNet, unwrap(self.network))
        levels = levels_of_weights(saved["network_weights"], net)
        if levels != net.kmax_levels:
            name = settings_name(type(self).__name__)
            raise complain(
                f"{filename_or_checkpoint} has k-means layers on the levels {levels}; these plans give "
                f"{net.kmax_levels}. Earlier versions chose them otherwise.",
                remedy=f'To continue, add "kmax_levels": {levels} to plans["{BLOCK}"]["hyperparameters"]["{name}"] in '
                f"{self.plans_manager.plans_name}.json. Prediction needs nothing.",
            )
        super().load_checkpoint(filename_or_checkpoint)

    # ---- one step

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> Terms:
        batches = [labeled, unlabeled] if self.contrast_weight() > 0 else [labeled]
        # one forward, so one set of batch statistics, of both views of the labelled patches and then of the others
        images = torch.cat([view for batch in batches for view in (batch.weak, batch.strong)])
        out: DKUXNetOutput = self.forward(self.network, images, 2 * len(labeled))
        groups, annotated = self.group_labels(labeled)
        once = [annotated, *(batch.valid for batch in batches[1:])]  # neither padding nor ignore label
        counted = torch.cat([of_view for mask in once for of_view in (mask, mask)])
        if self.observing:
            self.observe(out, counted, len(labeled))
        return self.labeled_terms(out, labeled.target, groups, annotated) | self.contrast_terms(
            out, counted, len(labeled)
        )

    def contrast_weight(self) -> float:
        """lambda r(t) at this moment; while it is 0, the unlabelled patches stay out of the step. Always 0 here."""
        return 0.0

    def contrast_terms(self, out: DKUXNetOutput, counted: Tensor, labeled: int) -> Terms:
        """None here.

        Args:
            out: of the weak and then the strong views of the labelled patches, and then of the others.
            counted: (2B, 1, *P) bool, in the same order, the same in both views.
            labeled: patches.
        """
        return Terms()

    def labeled_terms(self, out: DKUXNetOutput, target: Any, groups: Tensor, annotated: Tensor) -> Terms:
        """L_seg, L_qd and L_aux, means over the two views; for groups and annotated see :meth:`group_labels`."""
        hp, count = self.hyperparameters, len(groups)
        views = (slice(0, count), slice(count, 2 * count))

        def query_loss(responses: Tensor) -> Tensor:
            (group,), (mask,) = (resize_to(volume, [responses]) for volume in (groups, annotated))
            assert group is not None and mask is not None
            parts = [
                voxel_mean(query_distribution_loss, responses[view], group, self.group_of_query, mask=mask)
                for view in views
            ]
            return torch.stack(parts).mean()

        assignment = torch.stack([query_loss(responses) for responses in out.intermediate]).mean()
        supervised = torch.stack([self.supervised_loss(out.logits[view], target) for view in views]).mean()
        terms = Terms(supervised=supervised)
        terms.add("query_distribution", query_loss(out.responses), hp.query_loss_weight)
        terms.add("assignment", assignment, hp.assignment_weight)
        return terms

    def group_labels(self, labeled: LabeledBatch) -> tuple[Tensor, Tensor]:
        """(label merged to the query groups, where it counts), both (B_L, 1, *P), the latter bool."""
        target = cast(Tensor, labeled.target)
        last = int(self.group_of_query[-1])
        regions = self.targets.has_regions
        merged = self.targets.in_foreground(target).long() if regions else target.clamp(0, last).long()
        return merged, self.targets.counted(target) & labeled.valid

    def maps(self, out: DKUXNetOutput, labeled: int, background: bool = False) -> dict[str, Tensor]:
        """P and Q (2B, C, *P) in [0, 1] of all weak views and then all strong ones.

        With or without background; of regions, all channels of P are foreground.
        """
        first = 0 if background else 1
        prediction = self.targets.probabilities(out.logits)
        if not self.targets.has_regions:
            prediction = prediction[:, first:]
        distribution = log_query_distribution(out.responses, self.group_of_query).exp()[:, first:]
        return {"segmentation": by_view(prediction, labeled), "query": by_view(distribution, labeled)}

    @torch.no_grad()
    def observe(self, out: DKUXNetOutput, counted: Tensor, labeled: int) -> None:
        """Log how many queries are in use, the scale of the responses, and how similar the views of patches are."""
        last = query_perplexity(out.responses, self.group_sizes)
        layers = [query_perplexity(responses, self.group_sizes) for responses in out.intermediate]
        for name, of_last, *of_layers in zip(("used_queries", "used_queries_per_group"), last, *layers, strict=True):
            self.monitor.add(f"{COUNT}{name}", of_last)
            self.monitor.add(f"{COUNT}{name}_of_layers", torch.stack(of_layers).mean())
        net = cast(DKUXNet, unwrap(self.network))
        self.monitor.add("response_scale", net.predictor.temperature.weight[0])
        both = by_view(counted, labeled)
        for name, maps in self.maps(out, labeled).items():
            partners, others = mean_similarities((maps * both).flatten(1))
            self.monitor.add(f"similarity_of_partners_{name}", partners)
            self.monitor.add(f"similarity_of_others_{name}", others)
        self._observe_foreground("labeled", out.logits[:labeled], counted[:labeled])

    def _observe_foreground(self, name: str, logits: Tensor, counted: Tensor) -> None:
        """Log the mean probability of any foreground over the voxels that count."""
        foreground = self.targets.foreground_probability(logits)
        self.monitor.add(f"predicted_foreground_{name}", (foreground * counted).sum() / counted.sum().clamp(min=1))


def by_view(maps: Tensor, labeled: int) -> Tensor:
    """Weak and strong views of the labelled patches, then of the others (2B, ...) -> all weak, then all strong ones."""
    if len(maps) == 2 * labeled:
        return maps
    others = len(maps) // 2 - labeled
    weak, strong, other_weak, other_strong = maps.split([labeled, labeled, others, others])
    return torch.cat([weak, other_weak, strong, other_strong])
