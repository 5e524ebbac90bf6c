"""URPC: the outputs of one network at several scales agree on unlabelled patches.

Source: Luo et al., "Efficient Semi-Supervised Gross Target Volume of Nasopharyngeal Carcinoma Segmentation via
Uncertainty Rectified Pyramid Consistency" (MICCAI 2021), as its authors' SSL4MIS has it, see docs/methods/urpc.md.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor, nn

from nnunet_ssl.architectures.channel_dropout import ChannelDropout
from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.losses.pyramid_consistency import at_full_resolution, pyramid_consistency
from nnunet_ssl.losses.sparing import sparing
from nnunet_ssl.trainers.urpc.settings import URPCHyperparameters
from nnunet_ssl.training.base import Terms, nnUNetTrainerSemiSupervised
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.deep_supervision import finest
from nnunet_ssl.training.distributed import voxel_mean
from nnunet_ssl.training.network import check_unet, unwrap

DROPPED = (0.1, 0.2, 0.3, 0.5)  # of the channels, at strides 1, 2, 4 and 8; coarser ones as the last


class nnUNetTrainerURPC(nnUNetTrainerSemiSupervised):
    """L = L_sup(labelled) + w r(progress) mean_s L_s on the unlabelled patches, over the S finest outputs.

    With p their mean prediction, u_s its divergence from output s and w_s = exp(-u_s):
    L_s = mean[(p - p_s)^2 w_s] / mean w_s + mean u_s.
    """

    Hyperparameters: ClassVar[type] = URPCHyperparameters
    hyperparameters: URPCHyperparameters
    views: ClassVar[tuple[str, ...]] = ("labeled.image", "unlabeled.weak")
    card: ClassVar[MethodCard] = MethodCard(
        paper="Luo et al., URPC, MICCAI 2021",
        predicts="the network",
        dimensions="2D, 3D",
        extra_memory="maps of the outputs",
        extra_time="about 1",
    )

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> Terms:
        hp = self.hyperparameters
        if hp.consistency_weight == 0:
            return Terms(supervised=self.supervise(self.forward(self.network, labeled.image), labeled.target))
        weight = self.held(hp.consistency_weight * self.ramp(hp.rampup_fraction))
        with self.dropout.of_last(len(unlabeled)):
            outputs, rest = self.forward_joint(labeled.image, unlabeled.weak)
        scales = rest[: self.scales_of(hp, len(rest))]
        if self.observing:
            together = torch.stack(at_full_resolution([z.detach() for z in scales])).mean(0)
            self.observe_pseudo_labels(finest(scales), together, unlabeled.valid)
        terms = Terms(supervised=self.supervise(outputs, labeled.target))
        loss = torch.zeros((), device=self.device)
        if weight > 0:
            options = {"detach_mean": hp.detach_mean, "regions": self.targets.has_regions}
            loss = voxel_mean(sparing(pyramid_consistency, scales[0]), scales, mask=unlabeled.valid, **options)
        terms.add("consistency", loss, weight)
        return terms

    def supervise(self, outputs: list[Tensor], target: Any) -> Tensor:
        """nnU-Net's loss with deep supervision, or the mean over all outputs of its loss at full resolution."""
        if not self.hyperparameters.full_resolution_supervision:
            return self.supervised_loss(outputs, target)
        full = at_full_resolution(outputs)
        with self.mixed_precision():
            return torch.stack([self.loss.loss(logits, finest(target)) for logits in full]).mean()

    # ---- construction

    @staticmethod
    def scales_of(hp: URPCHyperparameters, outputs: int) -> int:
        """How many outputs agree: of deep supervision, not the coarsest one, to which nnU-Net gives no weight."""
        return min(hp.scales, outputs if hp.full_resolution_supervision else outputs - 1)

    @classmethod
    def check_supported(cls, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        super().check_supported(plans, configuration, dataset_json)
        reason = "it compares the outputs of a U-Net's decoder (PlainConvUNet, ResidualEncoderUNet)."
        check_unet(cls.__name__, plans, configuration, reason)
        arguments = PlansManager(plans).get_configuration(configuration).network_arch_init_kwargs
        outputs = len(arguments["strides"]) - 1
        if cls.scales_of(cls.settings_of(plans).hyperparameters, outputs) < 2:
            more = ", or set the hyper-parameter full_resolution_supervision=true" if outputs > 1 else ""
            raise NotImplementedError(
                f"{cls.__name__} does not support {configuration} of these plans: it needs two outputs that learn from "
                f"labels, and a network of {outputs + 1} stages has one. Plan a network of more stages (nnunet_ssl "
                f"plans --features){more}."
            )

    def initialize(self) -> None:
        self.enable_deep_supervision = True  # its outputs are what the method compares
        super().initialize()

    def build_auxiliary(self) -> dict[str, nn.Module]:
        network: Any = unwrap(self.network)
        layers = reversed(network.decoder.seg_layers)
        dropped = [*DROPPED, *[DROPPED[-1]] * (self.hyperparameters.scales - len(DROPPED))]
        perturbed = self.hyperparameters.perturbation == "channel"
        self.dropout = ChannelDropout(dict(zip(layers, dropped, strict=False)) if perturbed else {})
        return {}
