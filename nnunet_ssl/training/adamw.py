"""AdamW as networks with layer scales, learned temperatures and query tables want it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import nn

from nnunet_ssl.training.configured import nnUNetTrainerConfigured
from nnunet_ssl.training.network import freeze_unused_heads, unwrap

WEIGHTS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


class nnUNetTrainerAdamW(nnUNetTrainerConfigured):
    """AdamW at 1e-4 with nnU-Net's polynomial schedule; weight decay 0.01, of convolutions and linear layers alone.

    What the settings block names under "training" wins; with ``optimizer=sgd`` everything is nnU-Net's. Stands before
    other trainers among the bases.
    """

    default_optimizer: ClassVar[str] = "adamw"
    learning_rate: ClassVar[float] = 1e-4
    decay: ClassVar[float] = 0.01

    def set_up(self) -> None:
        super().set_up()
        training = self.settings.training
        if training.optimizer != "sgd":
            self.initial_lr = self.learning_rate if training.initial_lr is None else training.initial_lr
            self.weight_decay = self.decay if training.weight_decay is None else training.weight_decay

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        if self.settings.training.optimizer == "sgd":
            return super().configure_optimizers()
        freeze_unused_heads(self.network)
        optimizer = torch.optim.AdamW(decay_groups(unwrap(self.network), self.weight_decay), lr=self.initial_lr)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)


def decay_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for an optimiser: weights of convolutions and linear layers, and without decay all other parameters.

    The latter are biases, norms, scales and tables. Frozen parameters are in none.
    """
    decaying = {id(module.weight) for module in network.modules() if isinstance(module, WEIGHTS)}
    trainable = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if id(p) in decaying], "weight_decay": weight_decay},
        {"params": [p for p in trainable if id(p) not in decaying], "weight_decay": 0.0},
    ]
