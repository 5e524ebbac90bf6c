"""The semi-supervised trainers, one file per method, imported when asked for."""

from __future__ import annotations

import importlib

from nnunet_ssl.training.settings import LENGTH_VARIANT, register_trainers

CONTROL = "nnUNetTrainerSupervised"  # the labelled cases alone, with which every method is compared
FIRST_CHOICE = "nnUNetTrainerFixMatch"  # by docs/benchmarks/acdc_few_labels.md and left_atrium_few_labels.md
TRAINERS = {
    "nnUNetTrainerSupervised": "nnunet_ssl.trainers.supervised",
    "nnUNetTrainerPublishedSupervised": "nnunet_ssl.trainers.published_supervised",
    "nnUNetTrainerMeanTeacher": "nnunet_ssl.trainers.mean_teacher",
    "nnUNetTrainerUAMT": "nnunet_ssl.trainers.uamt.trainer",
    "nnUNetTrainerURPC": "nnunet_ssl.trainers.urpc.trainer",
    "nnUNetTrainerFixMatch": "nnunet_ssl.trainers.fixmatch.trainer",
    "nnUNetTrainerFixMatch_paper": "nnunet_ssl.trainers.fixmatch.paper",
    "nnUNetTrainerUniMatch": "nnunet_ssl.trainers.unimatch.trainer",
    "nnUNetTrainerUniMatch_paper": "nnunet_ssl.trainers.unimatch.paper",
    "nnUNetTrainerBCP": "nnunet_ssl.trainers.bcp.trainer",
    "nnUNetTrainerBCP_paper": "nnunet_ssl.trainers.bcp.paper",
    "nnUNetTrainerADMT": "nnunet_ssl.trainers.admt.trainer",
    "nnUNetTrainerADMT_paper": "nnunet_ssl.trainers.admt.paper",
    "nnUNetTrainerCPS": "nnunet_ssl.trainers.cps.trainer",
    "nnUNetTrainerCPS_released": "nnunet_ssl.trainers.cps.released",
    "nnUNetTrainerDHC": "nnunet_ssl.trainers.dhc.trainer",
    "nnUNetTrainerMCNet": "nnunet_ssl.trainers.mcnet.trainer",
    "nnUNetTrainerDTC": "nnunet_ssl.trainers.dtc.trainer",
    "nnUNetTrainerSSNet": "nnunet_ssl.trainers.ssnet.trainer",
    "nnUNetTrainerSKCDF": "nnunet_ssl.trainers.skcdf.trainer",
    "nnUNetTrainerSKCDF_paper": "nnunet_ssl.trainers.skcdf.paper",
    "nnUNetTrainerPLGCL": "nnunet_ssl.trainers.plgcl.trainer",
    "nnUNetTrainerPLGCL_paper": "nnunet_ssl.trainers.plgcl.paper",
    "nnUNetTrainerDualNetworks": "nnunet_ssl.trainers.dual_networks.trainer",
    "nnUNetTrainerDualNetworks_released": "nnunet_ssl.trainers.dual_networks.released",
    "nnUNetTrainerDKUXNet": "nnunet_ssl.trainers.dkuxnet.trainer",
    "nnUNetTrainerDKUXNet_paper": "nnunet_ssl.trainers.dkuxnet.paper",
    "nnUNetTrainerDKUXNetSupervised": "nnunet_ssl.trainers.dkuxnet.supervised",
    "nnUNetTrainerUXNet": "nnunet_ssl.trainers.uxnet",
    "nnUNetTrainerLDC": "nnunet_ssl.trainers.ldc.trainer",
    "nnUNetTrainerLDC_released": "nnunet_ssl.trainers.ldc.released",
    "nnUNetTrainerCMAformer": "nnunet_ssl.trainers.cmaformer.trainer",
    "nnUNetTrainerCMAformer_paper": "nnunet_ssl.trainers.cmaformer.paper",
    "nnUNetTrainerCMAformerSupervised": "nnunet_ssl.trainers.cmaformer.supervised",
}
register_trainers(TRAINERS)


def find_trainer(name: str) -> type:
    """The trainer class of that name, or its length variant ``<name>_<N>epochs``.

    Raises:
        AttributeError: not one of ours.
    """
    if name in TRAINERS:
        return getattr(importlib.import_module(TRAINERS[name]), name)
    match = LENGTH_VARIANT.match(name)
    if match is None or match["base"] not in TRAINERS:
        raise AttributeError(f"nnunet_ssl has no trainer {name!r}; it has {', '.join(TRAINERS)}")
    from nnunet_ssl.trainers.variants import length_variant

    return length_variant(match["base"], int(match["epochs"]))
