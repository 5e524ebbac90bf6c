"""AD-MT: one student and two averaged teachers that follow it in turns."""

from nnunet_ssl.trainers.admt.paper import ADMTPaperHyperparameters, nnUNetTrainerADMT_paper
from nnunet_ssl.trainers.admt.settings import ADMTHyperparameters
from nnunet_ssl.trainers.admt.trainer import nnUNetTrainerADMT

__all__ = ["ADMTHyperparameters", "ADMTPaperHyperparameters", "nnUNetTrainerADMT", "nnUNetTrainerADMT_paper"]
