"""SKCDF with the optimisation of the publication, on data prepared as the paper did; the network is the plans'."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from nnunet_ssl.trainers.skcdf.settings import SKCDFHyperparameters
from nnunet_ssl.trainers.skcdf.trainer import nnUNetTrainerSKCDF
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.published_recipes import PUBLISHED
from nnunet_ssl.training.recipe import Recipe
from nnunet_ssl.training.settings import other_default

BATCH_SIZE = 2  # labelled and unlabelled each, Sec. 4.2
VALIDATION_STEPS = 2  # an epoch is a few steps long; 50 would be most of the work


@dataclass(frozen=True)
class SKCDFPaperHyperparameters(SKCDFHyperparameters):
    guard: bool = other_default(SKCDFHyperparameters, "guard", False, source="off, as published")
    unlabeled_batch_size: int | None = other_default(
        SKCDFHyperparameters, "unlabeled_batch_size", BATCH_SIZE, source="2, Sec. 4.2"
    )
    token_map: str = other_default(SKCDFHyperparameters, "token_map", "xavier", source="xavier, released code")
    channel_dropout: float = other_default(SKCDFHyperparameters, "channel_dropout", 0.5, source="0.5, released code")
    pseudo_label_dropout: bool = other_default(
        SKCDFHyperparameters, "pseudo_label_dropout", True, source="on, released code"
    )
    class_counts: str = other_default(SKCDFHyperparameters, "class_counts", "cases", source="cases, Sec. 3.3")


class nnUNetTrainerSKCDF_paper(nnUNetTrainerSKCDF):
    """SGD at 0.3 with momentum 0.9, 1500 passes over the unlabelled cases, random crops without augmentation.

    No deep supervision, no gradient clipping, no mixed precision, no mirroring in prediction. What the settings block
    names under "training" wins. The network is that of the plans; the paper's is `nnunet_ssl plans --network vnet32`.
    """

    Hyperparameters: ClassVar[type] = SKCDFPaperHyperparameters
    hyperparameters: SKCDFPaperHyperparameters
    card: ClassVar[MethodCard] = replace(nnUNetTrainerSKCDF.card, extra_time="1.1 (3D), 1.2 (2D) in operations")
    recipe: ClassVar[Recipe] = replace(PUBLISHED["skcdf"], epochs=1500, validation_steps=VALIDATION_STEPS)  # Sec. 4.2

    def on_train_start(self) -> None:
        if self.settings.training.num_iterations_per_epoch is None:  # one pass over the unlabelled cases
            size = self.hyperparameters.unlabeled_batch_size or BATCH_SIZE  # of all ranks together
            self.num_iterations_per_epoch = max(1, len(self.streams.cases()) // size)
        super().on_train_start()

    def load_extra_state(self, state: dict[str, Any]) -> None:
        if self.settings.training.num_iterations_per_epoch is None:  # counted anew when training starts
            self.num_iterations_per_epoch = state["settings"]["training"]["num_iterations_per_epoch"]
        super().load_extra_state(state)
