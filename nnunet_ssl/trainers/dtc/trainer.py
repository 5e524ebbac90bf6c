"""DTC: a segmentation and a signed distance map of the same features agree; SASSNet by option.

Source: Luo et al., "Semi-supervised Medical Image Segmentation through Dual-task Consistency" (AAAI 2021), Li et al.
(SASSNet, MICCAI 2020), and their code; see docs/methods/dtc.md.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor, nn

from nnunet_ssl.architectures.boundary_heads import SignedDistanceHead
from nnunet_ssl.architectures.discriminator import MapDiscriminator
from nnunet_ssl.architectures.feature_tap import FeatureTap
from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.losses.distance_transform import dual_task_consistency
from nnunet_ssl.losses.signed_distance import signed_distance_mse
from nnunet_ssl.trainers.distance_targets import DISTANCE, AddSignedDistance, resize_maps
from nnunet_ssl.trainers.dtc.adversary import Adversary
from nnunet_ssl.trainers.dtc.settings import DTCHyperparameters
from nnunet_ssl.training.base import Terms, nnUNetTrainerSemiSupervised
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.deep_supervision import finest, split_outputs
from nnunet_ssl.training.distributed import voxel_mean
from nnunet_ssl.training.network import check_unet, unwrap


class nnUNetTrainerDTC(nnUNetTrainerSemiSupervised):
    """L = L_sup + beta (d - SDF(y))^2 on labelled patches + w r(progress) (sigmoid(-k d) - p)^2 on all.

    d: signed distance of each foreground class from a second head, p: its probability. SASSNet, in place of the last
    term: w_a r CE(D(d, x), labelled) on unlabelled patches, with a discriminator D that tells d of both streams apart.
    """

    Hyperparameters: ClassVar[type] = DTCHyperparameters
    hyperparameters: DTCHyperparameters
    views: ClassVar[tuple[str, ...]] = ("labeled.image", "unlabeled.weak")
    card: ClassVar[MethodCard] = MethodCard(
        paper="Luo et al., DTC, AAAI 2021",
        predicts="the network, with its segmentation",
        dimensions="2D, 3D",
        extra_memory="a head (SASSNet: and a discriminator)",
        extra_time="about 1, and distance maps in the loading workers",
    )
    adversary: Adversary | None = None

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> Terms:
        hp, count = self.hyperparameters, len(labeled)
        weight = hp.consistency_weight if hp.shape_prior == "none" else hp.adversarial_weight
        images = torch.cat([labeled.image, unlabeled.weak]) if weight > 0 else labeled.image
        with self.feature_tap.open():
            outputs = self.forward(self.network, images)
        distance = self.forward(self.auxiliary["distance_head"], self.feature_tap.take())
        terms = Terms(supervised=self.supervised_loss(split_outputs(outputs, count)[0], labeled.target))
        true = resize_maps(labeled.extra[DISTANCE], distance.shape[2:])
        error = voxel_mean(signed_distance_mse, distance[:count], true, mask=labeled.valid)
        terms.add("distance", error, hp.distance_weight)
        if weight == 0:
            return terms
        if self.observing:
            self.observe_pseudo_labels(finest(outputs)[count:], self.as_logits(distance[count:]), unlabeled.valid)
        weight = self.held(weight * self.ramp(hp.rampup_fraction))
        if self.adversary is None:
            terms.add("consistency", self.consistency(distance, finest(outputs), labeled, unlabeled), weight)
        else:
            terms.add("adversarial", self.adversary.deceived(distance, images, count), weight)
        return terms

    def consistency(self, distance: Tensor, logits: Tensor, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> Tensor:
        """On labelled patches of the classes that a patch shows: of an absent one the distance is nowhere near 0."""
        hp, masks = self.hyperparameters, self.targets.target_masks(finest(labeled.target))
        shown = masks.flatten(2).any(2).view(*masks.shape[:2], *[1] * (masks.ndim - 2))
        counted = torch.cat([labeled.valid & shown, unlabeled.valid.expand(-1, *masks.shape[1:])])
        p = self.targets.probabilities(logits)[:, -masks.shape[1] :]  # without the background
        return voxel_mean(dual_task_consistency, distance, p, mask=counted, steepness=hp.steepness, detach=hp.detach)

    def as_logits(self, distance: Tensor) -> Tensor:
        """What the distances (B, F, *P) say of the classes or regions: the foreground that a voxel is deepest in."""
        inside = -self.hyperparameters.steepness * distance
        return inside if self.targets.has_regions else torch.cat([torch.zeros_like(inside[:, :1]), inside], 1)

    def after_optimizer_step(self) -> None:
        if self.adversary is not None:
            self.monitor.add("discriminator", self.adversary.learn())

    @classmethod
    def check_supported(cls, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        super().check_supported(plans, configuration, dataset_json)
        check_unet(cls.__name__, plans, configuration)
        if PlansManager(plans).get_label_manager(dataset_json).has_ignore_label:
            raise NotImplementedError(
                f"{cls.__name__} does not support an ignore label, near which the distance to an object is not known. "
                "Use nnUNetTrainerFixMatch."
            )

    def build_auxiliary(self) -> dict[str, nn.Module]:
        classes, size = len(self.targets.foreground), self.configuration_manager.patch_size
        self.feature_tap = FeatureTap(unwrap(self.network))
        head = SignedDistanceHead(len(size), self.feature_tap.channels, classes, start=1e-3)
        if self.hyperparameters.shape_prior == "none" or self.hyperparameters.adversarial_weight == 0:
            return {"distance_head": head}
        self.adversary = Adversary(MapDiscriminator(classes, self.num_input_channels, size))
        return {"distance_head": head, "discriminator": self.adversary.discriminator}

    def labeled_steps(self) -> list[BasicTransform]:
        """The workers add the signed distance maps of the labels, at half the resolution in 3D."""
        unit = self.hyperparameters.distance_unit
        return [AddSignedDistance.of_plans(self.label_manager, self.configuration_manager, unit)]

    def auxiliary_state(self) -> dict[str, Any]:
        return {} if self.adversary is None else self.adversary.optimizer.state_dict()

    def load_auxiliary_state(self, state: dict[str, Any]) -> None:
        if self.adversary is not None:
            self.adversary.optimizer.load_state_dict(state)
