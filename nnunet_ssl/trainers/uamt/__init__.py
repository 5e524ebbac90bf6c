"""UA-MT: a mean teacher that is followed where several of its noisy passes are certain."""

from nnunet_ssl.trainers.uamt.settings import UAMTHyperparameters
from nnunet_ssl.trainers.uamt.trainer import nnUNetTrainerUAMT

__all__ = ["UAMTHyperparameters", "nnUNetTrainerUAMT"]
