"""LDC: Lagrange-duality consistency and boundary-aware contrast."""

from nnunet_ssl.trainers.ldc.released import LDCReleasedHyperparameters, nnUNetTrainerLDC_released
from nnunet_ssl.trainers.ldc.settings import LDCHyperparameters
from nnunet_ssl.trainers.ldc.trainer import nnUNetTrainerLDC

__all__ = [
    "LDCHyperparameters",
    "LDCReleasedHyperparameters",
    "nnUNetTrainerLDC",
    "nnUNetTrainerLDC_released",
]
