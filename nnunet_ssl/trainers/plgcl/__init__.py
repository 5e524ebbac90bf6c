"""PLGCL: pseudo-label guided contrastive learning between patches."""

from nnunet_ssl.trainers.plgcl.paper import PLGCLPaperHyperparameters, nnUNetTrainerPLGCL_paper
from nnunet_ssl.trainers.plgcl.settings import PLGCLHyperparameters
from nnunet_ssl.trainers.plgcl.trainer import nnUNetTrainerPLGCL

__all__ = [
    "PLGCLHyperparameters",
    "PLGCLPaperHyperparameters",
    "nnUNetTrainerPLGCL",
    "nnUNetTrainerPLGCL_paper",
]
