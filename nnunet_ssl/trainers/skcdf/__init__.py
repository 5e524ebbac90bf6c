"""SKCDF: semantic knowledge complementarity and decoupling."""

from nnunet_ssl.trainers.skcdf.paper import SKCDFPaperHyperparameters, nnUNetTrainerSKCDF_paper
from nnunet_ssl.trainers.skcdf.settings import SKCDFHyperparameters
from nnunet_ssl.trainers.skcdf.trainer import nnUNetTrainerSKCDF

__all__ = [
    "SKCDFHyperparameters",
    "SKCDFPaperHyperparameters",
    "nnUNetTrainerSKCDF",
    "nnUNetTrainerSKCDF_paper",
]
