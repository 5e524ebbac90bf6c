"""The fully supervised rows of publications' tables: labelled cases alone, trained as the publication trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.training.base import Terms, nnUNetTrainerSemiSupervised
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.published_recipes import PUBLISHED
from nnunet_ssl.training.recipe import Recipe
from nnunet_ssl.training.settings import setting
from nnunet_ssl.training.streams import WatchedHyperparameters


@dataclass(frozen=True)
class PublishedSupervisedHyperparameters(WatchedHyperparameters):
    supervised_loss: str = setting(
        "nnunet",
        "nnU-Net's own loss, Dice and cross-entropy, or the cross-entropy alone (ce)",
        source="both in UA-MT, SSL4MIS and DHC; ce in PLGCL, Eq. 7",
        choices=("nnunet", "ce"),
    )


class nnUNetTrainerPublishedSupervised(nnUNetTrainerSemiSupervised):
    """L = nnU-Net's loss of the labelled patches, under the published recipe that the settings name (UA-MT's without).

    The all-labels rows of the papers, and controls that differ from a ``_paper`` trainer in the unlabelled terms alone.
    No pool is needed and no unlabelled image is read.
    """

    Hyperparameters: ClassVar[type] = PublishedSupervisedHyperparameters
    hyperparameters: PublishedSupervisedHyperparameters
    recipe: ClassVar[Recipe] = PUBLISHED["uamt"]
    views: ClassVar[tuple[str, ...]] = ("labeled.image",)
    uses_unlabeled: ClassVar[bool] = False
    card: ClassVar[MethodCard] = MethodCard(
        paper="the supervised rows of semi-supervised papers",
        predicts="the network",
        dimensions="2D, 3D",
        extra_memory="none",
        extra_time="1.0",
    )

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> Terms:
        outputs = self.forward(self.network, labeled.image)
        return Terms(supervised=self.supervised_loss(outputs, labeled.target))

    def _build_loss(self) -> Any:
        loss = super()._build_loss()
        if self.hyperparameters.supervised_loss == "ce":
            getattr(loss, "loss", loss).weight_dice = 0.0
        return loss
