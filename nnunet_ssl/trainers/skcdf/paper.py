"""SKCDF with the optimisation of the publication, to reproduce its tables on data prepared as the paper did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from nnunet_ssl.trainers.skcdf.settings import SKCDFHyperparameters
from nnunet_ssl.trainers.skcdf.trainer import nnUNetTrainerSKCDF
from nnunet_ssl.training.published import nnUNetTrainerPublished
from nnunet_ssl.training.settings import setting

EPOCHS = 1500  # Sec. 4.1
BATCH_SIZE = 2  # labelled and unlabelled each, Sec. 4.1


@dataclass(frozen=True)
class SKCDFPaperHyperparameters(SKCDFHyperparameters):
    unlabeled_batch_size: int | None = setting(BATCH_SIZE, "unlabelled patches per step", source="2, Sec. 4.1", low=1)
    token_map: str = setting(
        "xavier", "initial token maps", source="xavier, released code", choices=("identity", "xavier")
    )
    channel_dropout: float = setting(
        0.5, "dropout of bottleneck and last channels", source="0.5, released code", low=0.0, high=0.9
    )


class nnUNetTrainerSKCDF_paper(nnUNetTrainerPublished, nnUNetTrainerSKCDF):
    """SGD at 0.3 with momentum 0.9, 1500 passes over the unlabelled cases, random crops without augmentation.

    No deep supervision, no gradient clipping, no mixed precision, no mirroring in prediction. What the settings block
    names under "training" wins. The network stays the plans' U-Net; the paper's is a V-Net with batch norm.
    """

    Hyperparameters: ClassVar[type] = SKCDFPaperHyperparameters
    hyperparameters: SKCDFPaperHyperparameters
    labeled_patches = BATCH_SIZE

    def set_up(self) -> None:
        super().set_up()
        if self.settings.training.num_epochs is None and self.length_variant_epochs is None:
            self.num_epochs = EPOCHS
        training = self.settings.training
        if training.initial_lr is None and training.optimizer is None:  # another optimiser keeps nnU-Net's rate
            self.initial_lr = 0.3  # Sec. 4.1; the release uses 0.1 for AMOS

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        if self.settings.training.optimizer is not None:
            return super().configure_optimizers()
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(
            parameters, self.initial_lr, momentum=0.9, nesterov=True, weight_decay=self.weight_decay
        )
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)  # power 0.9

    def on_train_start(self) -> None:
        if self.settings.training.num_iterations_per_epoch is None:  # one pass over the unlabelled cases
            size = self.hyperparameters.unlabeled_batch_size or BATCH_SIZE  # of all ranks together
            self.num_iterations_per_epoch = max(1, len(self.unlabeled_cases()) // size)
        super().on_train_start()

    def load_extra_state(self, state: dict[str, Any]) -> None:
        if self.settings.training.num_iterations_per_epoch is None:  # counted anew when training starts
            self.num_iterations_per_epoch = state["settings"]["training"]["num_iterations_per_epoch"]
        super().load_extra_state(state)
