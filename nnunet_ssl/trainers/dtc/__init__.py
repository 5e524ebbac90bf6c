"""DTC: a segmentation and a signed distance that agree; SASSNet: distances that a discriminator takes for labelled."""

from nnunet_ssl.trainers.dtc.settings import DTCHyperparameters
from nnunet_ssl.trainers.dtc.trainer import nnUNetTrainerDTC

__all__ = ["DTCHyperparameters", "nnUNetTrainerDTC"]
