"""DHC: two networks that label for each other, each with weights of the classes of another kind."""

from nnunet_ssl.trainers.dhc.settings import DHCHyperparameters
from nnunet_ssl.trainers.dhc.trainer import nnUNetTrainerDHC

__all__ = ["DHCHyperparameters", "nnUNetTrainerDHC"]
