"""SKCDF: semantic knowledge complementarity and decoupling for class-imbalanced segmentation.

Source: Zhang et al., "Semantic Knowledge Complementarity based Decoupling Framework for Semi-supervised
Class-imbalanced Medical Image Segmentation" (CVPR 2025); where paper and published experiments differ, see
docs/methods/skcdf.md.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar, cast

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, nn

from nnunet_ssl.architectures.skcdf import SKCDFNet, SKCDFOutput
from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.data.class_counts import count_labels
from nnunet_ssl.losses.balanced import (
    balanced_dice_ce,
    dice_ce,
    keep_probabilities,
    sample_keep_mask,
    scheduled_keep_probabilities,
)
from nnunet_ssl.trainers.skcdf.settings import SKCDFHyperparameters
from nnunet_ssl.trainers.skcdf.transfer import Branch, knowledge_transfer
from nnunet_ssl.training.base import Terms, nnUNetTrainerSemiSupervised
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.deep_supervision import finest
from nnunet_ssl.training.distributed import sum_over_ranks
from nnunet_ssl.training.network import unwrap
from nnunet_ssl.training.targets import hard_labels


class nnUNetTrainerSKCDF(nnUNetTrainerSemiSupervised):
    """L = L_sup + L_sup^bal + lambda_u (L_unsup + L_unsup^bal), each a cross-entropy plus a Dice (Eqs. 2, 4, 17, 19).

    The labelled decoder learns from labels alone and labels the unlabelled patches; the unlabelled decoder learns from
    those pseudo-labels alone, is pulled towards the labelled one before each step (Eqs. 5, 6), and predicts.
    """

    Hyperparameters: ClassVar[type] = SKCDFHyperparameters
    hyperparameters: SKCDFHyperparameters
    views: ClassVar[tuple[str, ...]] = ("labeled.image", "unlabeled.image")
    card: ClassVar[MethodCard] = MethodCard(
        paper="Zhang et al., SKCDF, CVPR 2025",
        predicts="unlabelled decoder (option: labelled)",
        dimensions="2D, 3D",
        extra_memory="a second decoder, bottleneck attention",
        extra_time="1.1 (3D), 1.2 (2D) in operations; about 1.5 (3D), 1.4 (2D) on a CPU",
    )

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The plans' U-Net as :class:`SKCDFNet`, with the options of the settings block."""
        hp: SKCDFHyperparameters = cls.settings_of(plans_manager.plans).hyperparameters
        return SKCDFNet.from_plans(
            configuration_manager.network_arch_class_name,
            configuration_manager.network_arch_init_kwargs,
            configuration_manager.network_arch_init_kwargs_req_import,
            configuration_manager.patch_size,
            num_input_channels,
            num_output_channels,
            enable_deep_supervision,
            decoupling=hp.decoupling,
            complementarity=hp.complementarity,
            balanced_heads=hp.balanced_heads,
            inference_decoder=hp.inference_decoder,
            channel_dropout=hp.channel_dropout,
            num_heads=hp.attention_heads,
            dropout=hp.attention_dropout,
            max_context=hp.context_samples,
            token_init=hp.token_map,
            self_heads=hp.self_heads,
            guided_dropout=hp.pseudo_label_dropout,
        )

    @classmethod
    def check_supported(cls, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        super().check_supported(plans, configuration, dataset_json)
        if PlansManager(plans).get_label_manager(dataset_json).has_regions:
            raise NotImplementedError(
                f"{cls.__name__} does not support region-based training: its pseudo-labels are single classes. "
                "Use a dataset.json without overlapping regions, or nnUNetTrainerFixMatch."
            )

    def set_up(self) -> None:
        super().set_up()
        self.counts_patches = self.hyperparameters.class_counts == "patches"

    def initialize(self) -> None:
        super().initialize()
        self.class_counts = torch.zeros(self.targets.channels, dtype=torch.int64, device=self.device)

    def keep_probability(self, label: Tensor | None = None) -> Tensor:
        """P_c = min N / N_c (Eq. 16), (K,) on the training device; equal on all ranks.

        Args:
            label: (B, 1, *P) of the labelled patches of a step, which join N_c where patches are counted.
        """
        if self.counts_patches and label is not None:
            counted = self.targets.counted(label)
            masks = self.targets.target_masks(label) & counted
            foreground = masks.sum([0, *range(2, masks.ndim)])
            self.class_counts += sum_over_ranks(torch.cat([(counted.sum() - foreground.sum())[None], foreground]))
        return keep_probabilities(self.class_counts)

    def count_cases(self) -> None:
        """N_c over the whole labelled cases of the fold."""
        counts = count_labels(self.preprocessed_dataset_folder, self.do_split()[0])
        voxels = [counts.get(int(label), 0) for label in self.label_manager.all_labels]
        self.print_to_log_file("Voxels per class in the labelled cases:", voxels)
        self.class_counts.copy_(torch.tensor(voxels))

    def auxiliary_state(self) -> dict[str, Any]:
        return {"class_counts": self.class_counts.cpu()} if self.counts_patches else {}

    def load_auxiliary_state(self, state: dict[str, Any]) -> None:
        if self.counts_patches and "class_counts" in state:
            self.class_counts.copy_(state["class_counts"])
        else:  # chosen now, or by a training of version 0.1.0, which goes on as it began
            self.counts_patches = False

    def _do_i_compile(self) -> bool:
        """Only where nnUNet_compile says so; nnU-Net's default is on, but parity in half precision is not shown yet."""
        return "nnUNet_compile" in os.environ and super()._do_i_compile()

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.hyperparameters.balanced_heads and not self.counts_patches:
            self.count_cases()

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> Terms:
        hp = self.hyperparameters
        self.transfer_knowledge()
        out: SKCDFOutput = self.forward(self.network, labeled.image, unlabeled.image)
        self.observe_pseudo_labels(finest(out.unlabeled_main), out.guided_main, unlabeled.valid)

        pseudo = hard_labels(out.guided_main)  # Eq. 3
        supervised = self.deep_supervised(
            _dice_ce, out.labeled_main, labeled.target, self.targets.annotated(labeled.target)
        )
        unsupervised = self.deep_supervised(_dice_ce, out.unlabeled_main, pseudo, unlabeled.valid)
        weight = self.held(hp.unsupervised_weight * self.ramp(hp.rampup_fraction))
        terms = Terms(supervised=supervised)
        terms.add("unsupervised", unsupervised, weight)
        if hp.balanced_heads:
            terms |= self._balanced_terms(out, finest(labeled.target), unlabeled.valid, weight)
        return terms

    def _balanced_terms(self, out: SKCDFOutput, label: Tensor, valid: Tensor, weight: float) -> Terms:
        """The auxiliary heads, on voxels thinned to about as many of each class (Eqs. 16-19)."""
        assert out.labeled_auxiliary is not None and out.guided_auxiliary is not None
        assert out.unlabeled_auxiliary is not None
        annotated = self.targets.annotated(label)
        keep_probability = self.keep_probability(label)
        pseudo = hard_labels(out.guided_auxiliary)  # Eq. 15
        scheduled = scheduled_keep_probabilities(keep_probability, self.progress)
        kept = sample_keep_mask(label, keep_probability, valid=annotated)
        kept_pseudo = sample_keep_mask(pseudo, scheduled, valid=valid)
        if self.observing:
            self.monitor.kept(pseudo, kept_pseudo, valid)
        offset = self.hyperparameters.auxiliary_dice_offset
        supervised = balanced_dice_ce(out.labeled_auxiliary, label, kept, annotated, dice_offset=offset)
        unsupervised = balanced_dice_ce(out.unlabeled_auxiliary, pseudo, kept_pseudo, valid, dice_offset=offset)
        terms = Terms(supervised_balanced=supervised)
        terms.add("unsupervised_balanced", unsupervised, weight)
        return terms

    def transfer_knowledge(self) -> None:
        """Auxiliary -> main head, labelled -> unlabelled branch, auxiliary -> main head, Eq. 6."""
        hp, net = self.hyperparameters, cast(SKCDFNet, unwrap(self.network))
        if hp.order_in_force is not None:
            labeled, unlabeled = (
                Branch(decoder.unet_decoder, decoder.main_head, decoder.auxiliary_head)
                for decoder in (net.labeled_decoder, net.unlabeled_decoder)
            )
            decay, of_heads = hp.transfer_decay, hp.head_transfer_decay
            of_heads = decay if of_heads is None else of_heads
            rate = self.relative_rate() if hp.transfer_follows_rate else 1.0
            knowledge_transfer(hp.order_in_force, labeled, unlabeled, 1 - rate * (1 - decay), 1 - rate * (1 - of_heads))

    def relative_rate(self) -> float:
        """The learning rate over its initial value."""
        return float(self.optimizer.param_groups[0]["lr"] / self.initial_lr) if self.initial_lr > 0 else 1.0

    def clipping_groups(self) -> list[list[nn.Parameter]]:
        """Shared part, labelled branch and unlabelled branch, so that a large lambda_u does not starve the labels."""
        net = cast(SKCDFNet, unwrap(self.network))
        branches = [list(decoder.parameters()) for decoder in net.decoders.values()]
        in_branches = {id(p) for branch in branches for p in branch}
        return [[p for p in net.parameters() if id(p) not in in_branches], *branches]


def _dice_ce(logits: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
    return dice_ce(logits, target, valid=valid)
