"""SS-Net: predictions stay the same under the worst small noise, and features stay near those of their class.

Source: Wu et al., "Exploring Smoothness and Class-Separation for Semi-supervised Medical Image Segmentation" (MICCAI
2022) and its code; see docs/methods/ssnet.md.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from nnunet_ssl.architectures.feature_tap import FeatureTap
from nnunet_ssl.architectures.separation_heads import SeparationHeads
from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.data.views import keep_background
from nnunet_ssl.losses.virtual_adversarial import adversarial_noise, dice_distance
from nnunet_ssl.trainers.ssnet.memory import FeatureMemory
from nnunet_ssl.trainers.ssnet.separation import separation
from nnunet_ssl.trainers.ssnet.settings import SSNetHyperparameters
from nnunet_ssl.training.base import Terms, nnUNetTrainerSemiSupervised
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.deep_supervision import finest, split_outputs
from nnunet_ssl.training.network import check_unet, unwrap


class nnUNetTrainerSSNet(nnUNetTrainerSemiSupervised):
    """L = L_sup + r(progress) { w_s Dist(p(x + n), p(x)) + w_c (L_cl on labelled + L_cl on unlabelled patches) }.

    n: noise of fixed size that changes p most, by one power iteration. L_cl: weighted distance of features from those
    remembered of their class, which is the label or, on unlabelled patches, what the network decides.
    """

    Hyperparameters: ClassVar[type] = SSNetHyperparameters
    hyperparameters: SSNetHyperparameters
    views: ClassVar[tuple[str, ...]] = ("labeled.image", "unlabeled.weak")
    card: ClassVar[MethodCard] = MethodCard(
        paper="Wu et al., SS-Net, MICCAI 2022",
        predicts="the network",
        dimensions="2D, 3D",
        extra_memory="a second forward, heads",
        extra_time="about 2.7",
    )

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> Terms:
        hp, count, ramp = self.hyperparameters, len(labeled), self.ramp(self.hyperparameters.rampup_fraction)
        used = hp.smoothness_weight > 0 or hp.separation_weight > 0
        images = torch.cat([labeled.image, unlabeled.weak]) if used else labeled.image
        outputs, features = self.logits_and_features(images)
        terms = Terms(supervised=self.supervised_loss(split_outputs(outputs, count)[0], labeled.target))
        if not used:
            return terms
        clean = disturbed = finest(outputs)
        if hp.smoothness_weight > 0:
            valid = torch.cat([labeled.valid, unlabeled.valid])
            error, disturbed = self.smoothness(images, clean.detach(), valid)
            terms.add("smoothness", error, self.held(hp.smoothness_weight * ramp))
        self.observe_pseudo_labels(disturbed[count:], clean[count:], unlabeled.valid)
        if hp.separation_weight > 0:
            error = self.separation(features, clean, labeled, unlabeled)
            terms.add("separation", error, self.held(hp.separation_weight * ramp))
        return terms

    def logits_and_features(self, images: Tensor) -> tuple[Any, Tensor]:
        """What the network returns, and what its last layer sees."""
        with self.feature_tap.open():
            outputs = self.forward(self.network, images)
        return outputs, self.feature_tap.take()

    def smoothness(self, images: Tensor, clean: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """(distance of the predictions with the adversarial noise from those without, logits with it)."""
        hp, target = self.hyperparameters, self.targets.probabilities(clean)
        distance = partial(dice_distance, second=target, mask=valid, squared=hp.distance == "squared")

        def change(noise: Tensor) -> Tensor:  # past the wrappers, which wait for gradients of the parameters
            logits = finest(self.forward(unwrap(self.network), self.disturbed(images, noise)))
            return distance(self.targets.probabilities(logits))

        noise = adversarial_noise(change, images, hp.noise_rms, hp.iterations)
        logits = finest(self.logits_and_features(self.disturbed(images, noise))[0])
        return distance(self.targets.probabilities(logits)), logits

    def disturbed(self, images: Tensor, noise: Tensor) -> Tensor:
        """With noise, but a background that nnU-Net keeps at zero stays zero."""
        return keep_background(images + noise, images, self.streams.masked_channels)

    def separation(self, features: Tensor, logits: Tensor, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> Tensor:
        """L_cl of both streams; a labelled voxel is of its label's class, others are of the network's decision."""
        count, target, decided = len(labeled), finest(labeled.target), self.targets.decided_masks(logits)
        known = self.targets.target_masks(target) & self.targets.counted(target) & labeled.valid
        streams = (features[:count], known), (features[count:], decided[count:] & unlabeled.valid)
        memory = cast(FeatureMemory, unwrap(self.auxiliary["memory"]))
        return separation(self.auxiliary["heads"], memory, streams, decided[:count], self.hyperparameters)

    # ---- construction

    @classmethod
    def check_supported(cls, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        super().check_supported(plans, configuration, dataset_json)
        check_unet(cls.__name__, plans, configuration)

    def build_auxiliary(self) -> dict[str, nn.Module]:
        hp, classes = self.hyperparameters, len(self.targets.foreground)
        self.feature_tap = FeatureTap(unwrap(self.network))
        if hp.separation_weight == 0:
            return {}
        return {
            "heads": SeparationHeads(self.feature_tap.channels, classes, hp.projection_size),
            "memory": FeatureMemory(classes, hp.memory_size, hp.projection_size),
        }
