"""Cross pseudo supervision: two networks that label for each other."""

from nnunet_ssl.trainers.cps.released import nnUNetTrainerCPS_released
from nnunet_ssl.trainers.cps.settings import CPSHyperparameters
from nnunet_ssl.trainers.cps.trainer import nnUNetTrainerCPS

__all__ = ["CPSHyperparameters", "nnUNetTrainerCPS", "nnUNetTrainerCPS_released"]
