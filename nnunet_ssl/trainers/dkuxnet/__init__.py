"""DKUXNet: a 3D UX-Net with queries, and the consistency of its query distributions."""

from nnunet_ssl.trainers.dkuxnet.paper import DKUXNetPaperHyperparameters, nnUNetTrainerDKUXNet_paper
from nnunet_ssl.trainers.dkuxnet.settings import DKUXNetHyperparameters, DKUXNetSupervisedHyperparameters
from nnunet_ssl.trainers.dkuxnet.supervised import nnUNetTrainerDKUXNetSupervised
from nnunet_ssl.trainers.dkuxnet.trainer import nnUNetTrainerDKUXNet

__all__ = [
    "DKUXNetHyperparameters",
    "DKUXNetPaperHyperparameters",
    "DKUXNetSupervisedHyperparameters",
    "nnUNetTrainerDKUXNet",
    "nnUNetTrainerDKUXNetSupervised",
    "nnUNetTrainerDKUXNet_paper",
]
