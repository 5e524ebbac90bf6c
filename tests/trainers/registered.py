"""Every registered trainer as nnU-Net finds it, and settings that keep it small. A new trainer joins by registering."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunet_ssl.external import nnunet_ssl_trainers
from tests.running import has_guard, make_trainer

NAMES = nnunet_ssl_trainers.NAMES
PRESETS = tuple(name for name in NAMES if name.endswith(("_paper", "_released")))

IGNORE = {"background": 0, "ball": 1, "box": 2, "ignore": 3}
REGIONS = {"background": 0, "whole": (1, 2), "box": 2}
KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "2d": ({}, "2d"),
    "3d": ({}, "3d_fullres"),
    "anisotropic": ({"shape": (8, 22, 24), "spacing": (4.0, 1.0, 1.0), "patch_3d": (6, 20, 20)}, "3d_fullres"),
    "ignore label, two channels": ({"labels": IGNORE, "channels": 2, "mask_normalization": True}, "2d"),
    "regions": ({"labels": {**REGIONS, "ignore": 3}, "regions_class_order": (1, 2)}, "3d_fullres"),
    "no deep supervision": ({"residual": True, "patch_3d": (12, 12, 20)}, "3d_fullres"),
}
"""Recipe of a tiny dataset and configuration, by name; the regions have an ignore label too."""
GOLDEN = ("2d", "3d", "ignore label, two channels", "regions")
REFUSED = {
    "nnUNetTrainerDHC": {"regions": "does not support region-based training"},
    "nnUNetTrainerDTC": dict.fromkeys(("ignore label, two channels", "regions"), "does not support an ignore label"),
    "nnUNetTrainerSKCDF": {"regions": "does not support region-based training"},
    "nnUNetTrainerSKCDF_paper": {"regions": "does not support region-based training"},
}
"""What a trainer refuses at construction, and what its message says."""
BEGINS_WITH_LABELED_ALONE = ("DKUXNet", "DKUXNet_paper", "LDC", "CMAformer", "CMAformer_paper")
"""These see the labelled patches alone as long as the weight of the others is 0: a second batch size."""
EARLY: dict[str, tuple[str, ...]] = {
    "collapsed to background": ("DKUXNet", "DKUXNet_paper", "DTC"),  # DTC: distances are outside everywhere at first
    # of a class that no voxel below the percentile has, or that is not predicted yet
    "No pseudo-label of class": (
        "UAMT", "DualNetworks", "FixMatch", "FixMatch_paper", "UniMatch", "UniMatch_paper", "ADMT", "ADMT_paper",
    ),
    "embeddings that are all alike": ("PLGCL", "PLGCL_paper"),
}  # fmt: skip
"""What a trainer may warn of after two steps, where it is still right."""
PLGCL_OPTIONS: dict[str, dict[str, Any]] = {
    "2d": {"similarity": "cosine", "anchor": "max", "covariance": "diag"},
    "3d": {"patch_size": [8, 8, 8], "embed_stage": "bottleneck", "unlabeled_batch_size": 1},
    "anisotropic": {
        "similarity": "confidence", "anchor": "uniform", "covariance": "none", "consistency_target": "hard",
    },
    "ignore label, two channels": {
        "queries": "anchor", "key_encoder": "student", "confidence_source": "student", "supervised_loss": "ce",
    },
    "no deep supervision": {
        "class_balanced": True, "max_classes": 2, "embedding_size": 8, "memory_size": 30, "neighbours": 3,
    },
}  # fmt: skip
OPTIONS: dict[tuple[str, str], dict[str, Any]] = {
    ("nnUNetTrainerLDC", "anisotropic"): {"class_weights": "frequency", "slice_distance": 1},
    ("nnUNetTrainerLDC", "ignore label, two channels"): {"confidence_threshold": 0.1},
    ("nnUNetTrainerLDC", "regions"): {"value_margin": 1e-3, "penalty": 0.1},
    ("nnUNetTrainerLDC", "no deep supervision"): {"reset_each_epoch": True},
    ("nnUNetTrainerCMAformer", "2d"): {"contrast_weight": 0.0, "gate": "none", "transformer_layers": 0},
    ("nnUNetTrainerCMAformer", "anisotropic"): {"gate": "qkv", "guard": False},
    ("nnUNetTrainerCMAformer", "ignore label, two channels"): {"gate": "sigmoid", "guard": False},
    ("nnUNetTrainerCMAformer", "no deep supervision"): {"unlabeled_batch_size": 1},
    **{("nnUNetTrainerPLGCL", kind): options for kind, options in PLGCL_OPTIONS.items()},
    ("nnUNetTrainerDualNetworks", "anisotropic"): {
        "pseudo_label_rule": "cross", "dynamic_roles": True, "hard_target": True, "channel_dropout": 0.5,
    },
    ("nnUNetTrainerDualNetworks", "no deep supervision"): {
        "sequential": True, "predict_with": "teacher", "pseudo_label_rule": "own", "unlabeled_batch_size": 1,
    },
    ("nnUNetTrainerDualNetworks", "3d"): {"contrast_weight": 0.0, "pseudo_label_weight": 0.0},
    ("nnUNetTrainerSKCDF", "no deep supervision"): {"unlabeled_batch_size": 1, "context_samples": 1},
    ("nnUNetTrainerMeanTeacher", "ignore label, two channels"): {"student_view": "strong"},
    ("nnUNetTrainerMeanTeacher", "regions"): {
        "student_view": "strong", "monitor_withheld_labels": True, "cutmix_probability": 1.0,
    },
    ("nnUNetTrainerMeanTeacher", "no deep supervision"): {"monitor_withheld_labels": True},
    ("nnUNetTrainerUniMatch", "anisotropic"): {"deep_pseudo": True, "monitor_withheld_labels": True},
    ("nnUNetTrainerFixMatch", "regions"): {"deep_pseudo": True, "monitor_withheld_labels": True},
    ("nnUNetTrainerUniMatch", "no deep supervision"): {"feature_dropout": None, "strong_views": 3},
    ("nnUNetTrainerBCP", "anisotropic"): {"monitor_withheld_labels": True, "student_view": "strong"},
    ("nnUNetTrainerBCP", "no deep supervision"): {"sup_unmixed": True},
    ("nnUNetTrainerCPS", "2d"): {"balance": "crest"},
    ("nnUNetTrainerCPS", "3d"): {"balance": "cld", "cross_on": "all"},
    ("nnUNetTrainerCPS", "anisotropic"): {"balance": "simis", "monitor_withheld_labels": True},
    ("nnUNetTrainerCPS", "no deep supervision"): {
        "cross_on": "all", "unlabeled_batch_size": 1, "cutmix_probability": 0.0,
    },
    ("nnUNetTrainerUAMT", "regions"): {"literal_ln2": True},
    ("nnUNetTrainerUAMT", "anisotropic"): {"student_view": "strong", "monitor_withheld_labels": True},
    ("nnUNetTrainerUAMT", "no deep supervision"): {"teacher_dropout": 0.0, "passes": 1},
    ("nnUNetTrainerURPC", "anisotropic"): {"detach_mean": True, "monitor_withheld_labels": True},
    ("nnUNetTrainerURPC", "no deep supervision"): {"perturbation": "none", "unlabeled_batch_size": 1},
    ("nnUNetTrainerDHC", "anisotropic"): {"weighted_sup": False, "cross_on": "unlabeled"},
    ("nnUNetTrainerDHC", "no deep supervision"): {"keep_absent": False, "skip_first": False, "weight_floor": 0.0},
    ("nnUNetTrainerMCNet", "2d"): {"consistency_on": "unlabeled", "detach_target": False},
    ("nnUNetTrainerMCNet", "ignore label, two channels"): {"sharpening": "channel", "monitor_withheld_labels": True},
    ("nnUNetTrainerMCNet", "no deep supervision"): {"decoders": 2, "unlabeled_batch_size": 1},
    ("nnUNetTrainerDTC", "3d"): {"distance_unit": "mm", "detach": "segmentation"},
    ("nnUNetTrainerDTC", "anisotropic"): {"shape_prior": "adversarial"},
    ("nnUNetTrainerDTC", "no deep supervision"): {"unlabeled_batch_size": 1},
    ("nnUNetTrainerSSNet", "2d"): {"distance": "plain", "iterations": 2, "remember": "lowest"},
    ("nnUNetTrainerSSNet", "no deep supervision"): {"unlabeled_batch_size": 1},
    ("nnUNetTrainerADMT", "regions"): {"monitor_withheld_labels": True, "entropy_unit": "nats"},
}  # fmt: skip
"""Hyper-parameters of a trainer on a kind of dataset, so that both are tried at once."""
RUNS: dict[tuple[str, str], dict[str, Any]] = {
    ("nnUNetTrainerMeanTeacher", "3d_fullres"): {"student_view": "strong", "ema_decay": 0.7},
    ("nnUNetTrainerMeanTeacher", "2d"): {"predict_with": "teacher", "ema_decay": 0.7, "cutmix_probability": 0.7},
    ("nnUNetTrainerFixMatch", "2d"): {"predict_with": "student", "ema_decay": 0.7},
    ("nnUNetTrainerUniMatch", "3d_fullres"): {"predict_with": "student", "ema_decay": 0.7},
    ("nnUNetTrainerUniMatch", "2d"): {"ema_decay": 0.7},
    ("nnUNetTrainerBCP", "2d"): {"predict_with": "teacher", "pretrain_fraction": 0.4, "sup_unmixed": True},
    ("nnUNetTrainerADMT", "2d"): {"predict_with": "teacher", "ema_decay": 0.7},
    ("nnUNetTrainerCPS", "3d_fullres"): {"balance": "cld"},
    ("nnUNetTrainerCPS", "2d"): {"predict_with": "second", "balance": "simis"},
    ("nnUNetTrainerUAMT", "2d"): {"predict_with": "teacher", "ema_decay": 0.7},
    ("nnUNetTrainerUAMT", "3d_fullres"): {"ema_decay": 0.7, "passes": 1},
    ("nnUNetTrainerDHC", "2d"): {"predict_with": "second", "cutmix_probability": 1.0},
    ("nnUNetTrainerMCNet", "2d"): {"decoders": 2},
    ("nnUNetTrainerDTC", "2d"): {"shape_prior": "adversarial"},
    ("nnUNetTrainerSKCDF", "3d_fullres"): {"channel_dropout": 0.3},
    ("nnUNetTrainerSKCDF", "2d"): {"context_samples": 1, "inference_decoder": "labeled"},
    ("nnUNetTrainerPLGCL", "3d_fullres"): {"ema_decay": 0.8, "max_classes": 2},
    ("nnUNetTrainerPLGCL", "2d"): {"predict_with": "teacher", "ema_decay": 0.8, "max_classes": 2},
    ("nnUNetTrainerDualNetworks", "3d_fullres"): {"channel_dropout": 0.3},
    ("nnUNetTrainerDualNetworks", "2d"): {"sequential": True, "predict_with": "teacher"},
    ("nnUNetTrainerDKUXNet", "2d"): {"norms": "batch", "guard": False},  # which could take the contrast out of a step
    ("nnUNetTrainerLDC", "3d_fullres"): {"norm_budget": 0.5},  # so small that the multiplier of the norm moves
    ("nnUNetTrainerLDC", "2d"): {"predict_with": "teacher", "ema_decay": 0.7},
    ("nnUNetTrainerCMAformer", "2d"): {"predict_with": "teacher", "ema_decay": 0.7},
}
"""Hyper-parameters of the runs that are resumed and predict: no default where the checkpoint must hold more for it."""
PREDICTS_WITH_THE_PLANS_NETWORK = (
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
    "nnUNetTrainerPLGCL",
    "nnUNetTrainerPLGCL_paper",
    "nnUNetTrainerLDC",
    "nnUNetTrainerLDC_released",
)
"""Their checkpoints predict in a stock nnU-Net, once the trainer's name in them is nnUNetTrainer."""

# By the beginning of a name; presets have the settings of their method and those of their own entry.
SMALL: dict[str, dict[str, Any]] = {
    "nnUNetTrainerUAMT": {"threshold_start": 1.0, "passes": 2},  # after a few steps nothing is certain
    "nnUNetTrainerURPC": {"full_resolution_supervision": True},  # so that both outputs count
    "nnUNetTrainerFixMatch": {"threshold": 0.4},  # after a few steps nothing is confident
    "nnUNetTrainerUniMatch": {"threshold": 0.4},
    "nnUNetTrainerADMT": {"threshold": 0.34, "period_steps": 1},  # each teacher has its turn
    "nnUNetTrainerSSNet": {"separation_voxels": 120, "memory_size": 4, "projection_size": 8},
    "nnUNetTrainerPLGCL": {"min_keys": 2, "memory_size": 64, "embedding_size": 16, "warmup_epochs": 1},
    "nnUNetTrainerDKUXNet": {"queries": 8, "query_width": 16, "pixel_width": 8, "mask_width": 4},
    "nnUNetTrainerDKUXNet_paper": {"queries": 24},
    "nnUNetTrainerLDC": {"pooled_size": 4, "projection_hidden": 8, "projection_size": 8},
    "nnUNetTrainerCMAformer": {"transformer_layers": 1, "attention_heads": 2},
    "nnUNetTrainerCMAformerSupervised": {},
}
CMAFORMER_LOSSES = ("nnUNetTrainerCMAformer", "nnUNetTrainerCMAformer_paper")


def small(name: str) -> dict[str, Any]:
    """Hyper-parameters that keep a step of this trainer short."""
    settings: dict[str, Any] = {}
    for beginning, values in SMALL.items():
        if name.startswith(beginning):
            settings |= values
    return settings | (SMALL["nnUNetTrainerLDC"] if name in CMAFORMER_LOSSES else {})


def make_registered(dataset: Path, name: str, configuration: str, **options: Any) -> Any:
    """The trainer of that name, small; options are those of :func:`make_trainer`."""
    trainer = getattr(nnunet_ssl_trainers, name)
    defaults = {"guard": trainer.Hyperparameters().guard} if has_guard(trainer) else {}
    options["hyperparameters"] = defaults | small(name) | options.get("hyperparameters", {})
    return make_trainer(dataset, trainer, configuration, **options)


def unguarded(name: str) -> dict[str, bool]:
    """Hyper-parameters with which pseudo-labels hold no weight back."""
    return {"guard": False} if has_guard(getattr(nnunet_ssl_trainers, name)) else {}
