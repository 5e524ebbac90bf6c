"""Hyper-parameters of CutMix, of every method that learns on mixed unlabelled patches."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nnunet_ssl.data.mixing import CutMix
from nnunet_ssl.errors import complain
from nnunet_ssl.training.settings import setting
from nnunet_ssl.training.streams import SemiSupervisedHyperparameters


@dataclass(frozen=True)
class CutMixHyperparameters(SemiSupervisedHyperparameters):
    cutmix_probability: float = setting(
        1.0,
        "of an unlabelled patch to get a box from another one of the step; 0: no mixing",
        source="0.5, UniMatch; 0, SSL4MIS; recommended",
        low=0.0,
        high=1.0,
    )
    cutmix_smallest: float = setting(
        0.3, "share of the patch in the smallest box", source="0.02, UniMatch; recommended", low=0.001, high=1.0
    )
    cutmix_largest: float = setting(
        0.6, "share of the patch in the largest box", source="0.4, UniMatch; recommended", low=0.001, high=1.0
    )
    cutmix_aspect: float = setting(
        3.33, "largest ratio of a box's edges, relative to the patch", source="1 / 0.3, UniMatch", low=1.0
    )

    def cutmix(self, generator: torch.Generator) -> CutMix:
        """What mixes patches.

        Raises:
            SemiSupervisedError: the smallest box is larger than the largest one.
        """
        if self.cutmix_smallest > self.cutmix_largest:
            raise complain(
                f"cutmix_smallest {self.cutmix_smallest} is larger than cutmix_largest {self.cutmix_largest}.",
                remedy="Choose shares of the patch in rising order.",
            )
        share = (self.cutmix_smallest, self.cutmix_largest)
        return CutMix(self.cutmix_probability, share, self.cutmix_aspect, generator)
