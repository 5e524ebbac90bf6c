"""The one module nnU-Net scans: hands out the semi-supervised trainers, and nothing else.

`export nnUNet_extTrainer=$(nnunet_ssl path)` points here. nnU-Net imports every module of an external directory and
asks each for a class name; the lookup below imports the one trainer that was asked for, so other people's trainers
are found without importing anything of ours.
"""

import re

NAMES = (
    "nnUNetTrainerSupervised",
    "nnUNetTrainerPublishedSupervised",
    "nnUNetTrainerMeanTeacher",
    "nnUNetTrainerUAMT",
    "nnUNetTrainerURPC",
    "nnUNetTrainerFixMatch",
    "nnUNetTrainerFixMatch_paper",
    "nnUNetTrainerUniMatch",
    "nnUNetTrainerUniMatch_paper",
    "nnUNetTrainerBCP",
    "nnUNetTrainerBCP_paper",
    "nnUNetTrainerADMT",
    "nnUNetTrainerADMT_paper",
    "nnUNetTrainerCPS",
    "nnUNetTrainerCPS_released",
    "nnUNetTrainerDHC",
    "nnUNetTrainerMCNet",
    "nnUNetTrainerDTC",
    "nnUNetTrainerSSNet",
    "nnUNetTrainerSKCDF",
    "nnUNetTrainerSKCDF_paper",
    "nnUNetTrainerPLGCL",
    "nnUNetTrainerPLGCL_paper",
    "nnUNetTrainerDualNetworks",
    "nnUNetTrainerDualNetworks_released",
    "nnUNetTrainerDKUXNet",
    "nnUNetTrainerDKUXNet_paper",
    "nnUNetTrainerDKUXNetSupervised",
    "nnUNetTrainerUXNet",
    "nnUNetTrainerLDC",
    "nnUNetTrainerLDC_released",
    "nnUNetTrainerCMAformer",
    "nnUNetTrainerCMAformer_paper",
    "nnUNetTrainerCMAformerSupervised",
)
_OURS = re.compile(rf"({'|'.join(NAMES)})(_[1-9]\d*epochs)?")


def __getattr__(name: str) -> type:
    if not _OURS.fullmatch(name):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from nnunet_ssl.system.uncaught import explain_uncaught
        from nnunet_ssl.trainers import find_trainer

        explain_uncaught()
        return find_trainer(name)
    except ModuleNotFoundError as error:
        if error.name != "nnunet_ssl":  # a dependency, which the error names
            raise
        raise ModuleNotFoundError(
            f"{name} belongs to the package nnunet_ssl, which is not installed in this environment. "
            "Run: pip install .   (in a clone of nnunet_ssl; or: pip install nnunet_ssl-VERSION-py3-none-any.whl)",
            name="nnunet_ssl",
        ) from error
    except AttributeError as error:  # nnU-Net would take it for "there is no such trainer"
        raise ImportError(f"{name} cannot be imported: {error}") from error
