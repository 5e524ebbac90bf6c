"""Hyper-parameters of FixMatch (NeurIPS 2020): those of UniMatch with other defaults."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_ssl.trainers.unimatch.settings import UniMatchHyperparameters
from nnunet_ssl.training.settings import other_default


@dataclass(frozen=True)
class FixMatchHyperparameters(UniMatchHyperparameters):
    strong_views: int = other_default(UniMatchHyperparameters, "strong_views", 1, source="1, FixMatch")
    feature_dropout: float | None = other_default(
        UniMatchHyperparameters, "feature_dropout", None, source="null, FixMatch"
    )
