"""FixMatch: one strong view learns what is confident in the weak view.

Source: Sohn et al., "FixMatch" (NeurIPS 2020); teacher and box are recommended here, see docs/methods/fixmatch.md.
"""

from __future__ import annotations

from typing import ClassVar

from nnunet_ssl.trainers.fixmatch.settings import FixMatchHyperparameters
from nnunet_ssl.trainers.unimatch.trainer import nnUNetTrainerUniMatch
from nnunet_ssl.training.card import MethodCard


class nnUNetTrainerFixMatch(nnUNetTrainerUniMatch):
    """L = L_sup(labelled) + w r(progress) l(strong, mixed): UniMatch with one view and without dropped features."""

    Hyperparameters: ClassVar[type] = FixMatchHyperparameters
    hyperparameters: FixMatchHyperparameters
    card: ClassVar[MethodCard] = MethodCard(
        paper="Sohn et al., FixMatch, NeurIPS 2020",
        predicts="teacher (option: student)",
        dimensions="2D, 3D",
        extra_memory="one copy of the network",
        extra_time="about 1.2",
    )
