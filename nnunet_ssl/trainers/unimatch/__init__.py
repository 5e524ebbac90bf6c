"""UniMatch and its preset FixMatch: what is confident in a weak view is learnt on strong, mixed views."""

from nnunet_ssl.trainers.unimatch.fixmatch import nnUNetTrainerFixMatch
from nnunet_ssl.trainers.unimatch.paper import nnUNetTrainerFixMatch_paper, nnUNetTrainerUniMatch_paper
from nnunet_ssl.trainers.unimatch.settings import FixMatchHyperparameters, UniMatchHyperparameters
from nnunet_ssl.trainers.unimatch.trainer import nnUNetTrainerUniMatch

__all__ = [
    "FixMatchHyperparameters",
    "UniMatchHyperparameters",
    "nnUNetTrainerFixMatch",
    "nnUNetTrainerFixMatch_paper",
    "nnUNetTrainerUniMatch",
    "nnUNetTrainerUniMatch_paper",
]
