"""What every trainer that learns on mixed unlabelled patches shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from nnunet_ssl.training.checkpoint import own_generator

if TYPE_CHECKING:
    from nnunet_ssl.training.base import nnUNetTrainerSemiSupervised

    Trainer = nnUNetTrainerSemiSupervised
else:
    Trainer = object


class MixesPatches(Trainer):
    """Gives a trainer ``self.cutmix`` as its :class:`CutMixHyperparameters` say.

    Stands before the trainer that a method builds on, among the bases: beside the levels of inheritance, not one more.
    """

    @classmethod
    def check_supported(cls, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        super().check_supported(plans, configuration, dataset_json)
        cls.settings_of(plans).hyperparameters.cutmix(torch.Generator())  # checks

    def build_auxiliary(self) -> dict[str, nn.Module]:
        self.generator = own_generator(torch.device("cpu"))
        self.cutmix = self.hyperparameters.cutmix(self.generator)
        if self.hyperparameters.cutmix_probability > 0 and self.streams.unlabeled_batch_size < 2:
            self.print_to_log_file(
                "WARNING: Nothing is mixed in steps of one unlabelled patch; set unlabeled_batch_size."
            )
        return super().build_auxiliary()

    def load_auxiliary_state(self, state: dict[str, Any]) -> None:
        if "generator" in state:  # not in checkpoints of a time when the method mixed nothing
            super().load_auxiliary_state(state)
