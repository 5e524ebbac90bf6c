"""Dual Networks: two different networks that agree, doubt and label each other."""

from nnunet_ssl.trainers.dual_networks.released import (
    DualNetworksReleasedHyperparameters,
    nnUNetTrainerDualNetworks_released,
)
from nnunet_ssl.trainers.dual_networks.settings import DualNetworksHyperparameters
from nnunet_ssl.trainers.dual_networks.trainer import nnUNetTrainerDualNetworks

__all__ = [
    "DualNetworksHyperparameters",
    "DualNetworksReleasedHyperparameters",
    "nnUNetTrainerDualNetworks",
    "nnUNetTrainerDualNetworks_released",
]
