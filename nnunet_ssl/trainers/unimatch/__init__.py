"""UniMatch: what is confident in a weak view is learnt on strong, mixed views and from thinned-out features."""

from nnunet_ssl.trainers.unimatch.paper import UniMatchPaperHyperparameters, nnUNetTrainerUniMatch_paper
from nnunet_ssl.trainers.unimatch.settings import UniMatchHyperparameters
from nnunet_ssl.trainers.unimatch.trainer import nnUNetTrainerUniMatch

__all__ = [
    "UniMatchHyperparameters",
    "UniMatchPaperHyperparameters",
    "nnUNetTrainerUniMatch",
    "nnUNetTrainerUniMatch_paper",
]
