"""URPC: the outputs of a network at several scales agree on unlabelled patches."""

from nnunet_ssl.trainers.urpc.settings import URPCHyperparameters
from nnunet_ssl.trainers.urpc.trainer import nnUNetTrainerURPC

__all__ = ["URPCHyperparameters", "nnUNetTrainerURPC"]
