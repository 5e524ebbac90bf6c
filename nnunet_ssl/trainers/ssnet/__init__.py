"""SS-Net: predictions that small noise does not change, and features near those of their class."""

from nnunet_ssl.trainers.ssnet.settings import SSNetHyperparameters
from nnunet_ssl.trainers.ssnet.trainer import nnUNetTrainerSSNet

__all__ = ["SSNetHyperparameters", "nnUNetTrainerSSNet"]
