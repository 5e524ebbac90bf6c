"""MC-Net: several decoders that learn each other's sharpened predictions."""

from nnunet_ssl.trainers.mcnet.settings import MCNetHyperparameters
from nnunet_ssl.trainers.mcnet.trainer import nnUNetTrainerMCNet

__all__ = ["MCNetHyperparameters", "nnUNetTrainerMCNet"]
