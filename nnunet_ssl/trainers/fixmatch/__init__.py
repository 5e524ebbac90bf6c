"""FixMatch: UniMatch with one strong view and without dropped features."""

from nnunet_ssl.trainers.fixmatch.paper import nnUNetTrainerFixMatch_paper
from nnunet_ssl.trainers.fixmatch.settings import FixMatchHyperparameters
from nnunet_ssl.trainers.fixmatch.trainer import nnUNetTrainerFixMatch

__all__ = ["FixMatchHyperparameters", "nnUNetTrainerFixMatch", "nnUNetTrainerFixMatch_paper"]
