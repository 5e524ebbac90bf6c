"""CMAformer with the losses of LDC, and alone."""

from nnunet_ssl.trainers.cmaformer.network import CMAformerNetworkHyperparameters
from nnunet_ssl.trainers.cmaformer.paper import CMAformerPaperHyperparameters, nnUNetTrainerCMAformer_paper
from nnunet_ssl.trainers.cmaformer.supervised import nnUNetTrainerCMAformerSupervised
from nnunet_ssl.trainers.cmaformer.trainer import CMAformerHyperparameters, nnUNetTrainerCMAformer

__all__ = [
    "CMAformerHyperparameters",
    "CMAformerNetworkHyperparameters",
    "CMAformerPaperHyperparameters",
    "nnUNetTrainerCMAformer",
    "nnUNetTrainerCMAformerSupervised",
    "nnUNetTrainerCMAformer_paper",
]
