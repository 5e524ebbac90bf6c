"""DKUXNet as the network of a trainer: built from plans, its queries in groups, its memory estimated."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_ssl.architectures.dkuxnet import DKUXNet
from nnunet_ssl.architectures.dkuxnet_memory import training_bytes
from nnunet_ssl.architectures.uxnet import arguments_from_plans
from nnunet_ssl.trainers.dkuxnet.query_perplexity import group_sizes
from nnunet_ssl.trainers.dkuxnet.settings import NETWORK_OPTIONS, DKUXNetSupervisedHyperparameters
from nnunet_ssl.training.adamw import nnUNetTrainerAdamW
from nnunet_ssl.training.base import nnUNetTrainerSemiSupervised
from nnunet_ssl.training.network import tried_on_plans, unwrap


class nnUNetTrainerDKUXNetNetwork(nnUNetTrainerAdamW, nnUNetTrainerSemiSupervised):
    """The levels of the plans' U-Net as :class:`DKUXNet`, without deep supervision; trained with AdamW."""

    Hyperparameters: ClassVar[type] = DKUXNetSupervisedHyperparameters
    hyperparameters: DKUXNetSupervisedHyperparameters
    needs_logits_alone: ClassVar[bool] = False
    has_deep_supervision: ClassVar[bool] = False

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
        with tried_on_plans(cls.__name__, configuration):
            net = cls.build_network_architecture(manager, chosen, 1, outputs)
            net.encoder.levels.check_size(chosen.patch_size)
            cls.queries_per_group(plans, net.centres.shape[1], 2 if labels.has_regions else outputs)

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

    def settings_in_force(self) -> dict[str, Any]:
        """With the network's options as they are: what plans that name it say wins over the settings block."""
        settings = super().settings_in_force()
        built = self.network_arguments(self.plans_manager, self.configuration_manager)
        first, second = built["pixel_widths"]
        settings["hyperparameters"] |= {name: built[name] for name in NETWORK_OPTIONS}
        settings["hyperparameters"] |= {"pixel_width": first, "mask_width": second}
        return settings

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
