"""BCP: labelled and unlabelled patches pasted into each other."""

from nnunet_ssl.trainers.bcp.paper import BCPPaperHyperparameters, nnUNetTrainerBCP_paper
from nnunet_ssl.trainers.bcp.settings import BCPHyperparameters
from nnunet_ssl.trainers.bcp.trainer import nnUNetTrainerBCP

__all__ = ["BCPHyperparameters", "BCPPaperHyperparameters", "nnUNetTrainerBCP", "nnUNetTrainerBCP_paper"]
