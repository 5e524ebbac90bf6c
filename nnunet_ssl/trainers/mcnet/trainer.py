"""MC-Net and MC-Net+: decoders that differ in how they upsample learn each other's sharpened predictions.

Source: Wu et al., "Semi-supervised Left Atrium Segmentation with Mutual Consistency Training" (MICCAI 2021) and "Mutual
Consistency Learning for Semi-supervised Medical Image Segmentation" (Medical Image Analysis 2022), and their code; see
docs/methods/mcnet.md.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from nnunet_ssl.architectures.feature_tap import Tap
from nnunet_ssl.architectures.unet_decoder import interpolating_decoder
from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.losses.mutual_consistency import mutual_consistency
from nnunet_ssl.trainers.mcnet.settings import MCNetHyperparameters
from nnunet_ssl.training.base import Terms, nnUNetTrainerSemiSupervised
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.deep_supervision import finest, split_outputs
from nnunet_ssl.training.distributed import voxel_mean
from nnunet_ssl.training.network import check_unet, unwrap

UPSAMPLING = {"second": "linear", "third": "nearest"}  # the network's own decoder has transposed convolutions


class nnUNetTrainerMCNet(nnUNetTrainerSemiSupervised):
    """L = mean_i L_sup(z_i) + w r(progress) sum_{i != j} mean_{voxels, classes} (p_i - s(p_j))^2 on all patches.

    One encoder, n decoders; s(p) = p^(1/T), normalised. The network's own decoder predicts.
    """

    Hyperparameters: ClassVar[type] = MCNetHyperparameters
    hyperparameters: MCNetHyperparameters
    views: ClassVar[tuple[str, ...]] = ("labeled.image", "unlabeled.weak")
    card: ClassVar[MethodCard] = MethodCard(
        paper="Wu et al., MC-Net+, Medical Image Analysis 2022",
        predicts="the network, with its own decoder",
        dimensions="2D, 3D",
        extra_memory="one or two more decoders",
        extra_time="about 2.4; with one more decoder 1.6",
    )

    @classmethod
    def check_supported(cls, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        super().check_supported(plans, configuration, dataset_json)
        check_unet(cls.__name__, plans, configuration)

    def build_auxiliary(self) -> dict[str, nn.Module]:
        self.encoder_tap = Tap(cast(nn.Module, unwrap(self.network).decoder))
        chosen = list(UPSAMPLING.items())[: self.hyperparameters.decoders - 1]
        return {name: interpolating_decoder(self.second_network(), mode, type(self).__name__) for name, mode in chosen}

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> Terms:
        hp, count = self.hyperparameters, len(labeled)
        if hp.consistency_weight == 0:
            return Terms(supervised=self.supervised(self.decoded(labeled.image), labeled.target))
        outputs = self.decoded(torch.cat([labeled.image, unlabeled.weak]))
        terms = Terms(supervised=self.supervised([split_outputs(z, count)[0] for z in outputs], labeled.target))

        logits, counted = [finest(z) for z in outputs], torch.cat([labeled.valid, unlabeled.valid])
        self.observe_pseudo_labels(logits[0][count:], logits[1][count:], unlabeled.valid)
        if hp.consistency_on == "unlabeled":
            logits, counted = [z[count:] for z in logits], unlabeled.valid
        error = voxel_mean(
            mutual_consistency, logits, hp.temperature,
            mask=counted, detach=hp.detach_target, regions=self.targets.has_regions,
            per_channel=hp.sharpening == "channel",
        )  # fmt: skip
        terms.add("consistency", error, self.held(hp.consistency_weight * self.ramp(hp.rampup_fraction)))
        return terms

    def decoded(self, images: Tensor) -> list[Any]:
        """What each decoder makes of the same features, as nnU-Net's loss wants it; the network's own first."""
        with self.encoder_tap.open():
            first = self.forward(self.network, images)
        features = self.encoder_tap.take()
        return [first, *(self.forward(decoder, features) for decoder in self.auxiliary.values())]

    def supervised(self, outputs: list[Any], target: Any) -> Tensor:
        """L_sup, the mean over the decoders."""
        return torch.stack([self.supervised_loss(own, target) for own in outputs]).mean()
