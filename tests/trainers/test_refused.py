"""What a trainer refuses at construction: settings and plans that it cannot train with, before anything is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.trainers import find_trainer
from tests.running import make_trainer

REGIONS = {"labels": {"background": 0, "whole": (1, 2), "box": 2}, "regions_class_order": (1, 2)}
SETTINGS: list[tuple[str, dict[str, Any], str]] = [
    ("SKCDF", {"transfer_order": "D->H", "transfer_decay": 1.1, "attention_heads": 0, "decoupling": "yes"},
     "'none', 'D', 'H->D', 'D->H->H', 'H->H->D', 'H->D->H'"),
    ("PLGCL", {"similarity": "dice", "temperature": 0.0, "ema_decay": 1.1, "memory_size": 0, "patch_size": 8}, ""),
    ("PLGCL", {"patch_size": [5] * 3, "embed_stage": "bottleneck"}, r"Windows of \[5, 5.* do not fit "),
    ("DualNetworks", {"percentile": 101.0, "temperature": 0.0, "pseudo_label_rule": "or", "predict_with": "both"}, ""),
    ("DKUXNet", {"groups": 4}, "4 groups"),
    ("DKUXNet", {"group_sizes": [30, 1, 2]}, r"32 queries .* \[30, 1, 2\]"),
    ("DKUXNet", {"group_sizes": [30, 2, 0]}, r"\[30, 2, 0\]"),
    ("DKUXNet", {"kmax_levels": [0]}, ""),
    ("DKUXNet", {"query_width": 40}, "query_width 40"),
    ("DKUXNet", {"contrast": "map", "temperature": 0.0}, ""),
    ("UniMatch", {"cutmix_smallest": 0.6, "cutmix_largest": 0.5}, "cutmix_smallest 0.6 is larger than"),
    ("FixMatch", {"pseudo_loss": "mse", "teacher": "cps", "strong_views": 0}, ""),
    ("BCP", {"box_edge": 0.0, "largest_component": "yes", "pretrain_fraction": 1.0, "box_per": "step"}, ""),
    ("ADMT", {"threshold": 1.2, "period_steps": 0, "entropy_unit": "trits", "pseudo_loss": "mse"}, ""),
    ("UAMT", {"passes": 0, "teacher_dropout": 1.0, "threshold_start": 1.5}, ""),
    ("URPC", {"scales": 1, "perturbation": "noise"}, ""),
    ("DHC", {"accumulate": 0, "weight_floor": 2.0, "balance": "crest"}, ""),
    ("MCNet", {"decoders": 4, "temperature": 0.0, "sharpening": "class", "consistency_on": "labeled"}, ""),
    ("DTC", {"shape_prior": "gan", "distance_weight": -0.1, "detach": "both", "distance_unit": "cm"}, ""),
    ("SSNet", {"noise_rms": 0.0, "iterations": 0, "distance": "l2", "memory_size": 1, "remember": "all"}, ""),
    ("LDC", {"value_margin": 0.6}, "value_margin = 0.6 must lie between 0.0 and 0.4"),
]  # fmt: skip
NO_UNET = {"network_class_name": "elsewhere.Primus", "arch_kwargs": {"embed_dim": 8}, "_kw_requires_import": []}
PLANS: list[tuple[str, dict[str, Any], str]] = [
    ("PLGCL", NO_UNET, "PLGCL does not support .*Primus"),
    ("UniMatch", NO_UNET, "UniMatch does not support elsewhere.Primus.*feature_dropout=null"),
    ("UAMT", NO_UNET, "UAMT does not support elsewhere.Primus.*teacher_dropout=0"),
    ("URPC", NO_UNET, "URPC does not support elsewhere.Primus.*outputs of a U-Net"),
    ("DualNetworks", {"network_class_name": "a.UMamba"},
     "PlainConvUNet, ResidualEncoderUNet, VNet or ResVNet in the plans, not a UM"),
    ("DKUXNet", {"arch_kwargs": {}}, "DKUXNet cannot be built from plans of .*PlainConvUNet.*strides"),
    ("MeanTeacher", {"network_class_name": "nnunet_ssl.architectures.dkuxnet.DKUXNet"},
     "support nnunet_ssl.*DKUXNet.*more than a segmentation"),
    *((name, NO_UNET, "does not support elsewhere.Primus")
      for name in ("MCNet", "DTC", "SSNet", "LDC", "CMAformer", "CMAformerSupervised")),
]  # fmt: skip


def refusal(dataset: Path, name: str, configuration: str = "3d_fullres", **options: Any) -> str:
    with pytest.raises((SemiSupervisedError, NotImplementedError)) as error:
        make_trainer(dataset, find_trainer(f"nnUNetTrainer{name}"), configuration, **options)
    results = dataset.parents[1] / "nnUNet_results"
    assert not results.exists() or not list(results.iterdir())
    return str(error.value)


@pytest.mark.parametrize(("name", "wrong", "message"), SETTINGS)
def test_settings_that_do_not_fit_are_all_named(make_dataset, name, wrong, message):
    found = refusal(make_dataset(preprocess=False), name, hyperparameters=wrong)
    assert [key for key in wrong if key not in found] == [] and re.search(message, found)


@pytest.mark.parametrize(("name", "architecture", "message"), PLANS)
def test_plans_of_other_networks(make_dataset, name, architecture, message):
    dataset = make_dataset(preprocess=False)
    plans = load_json(str(dataset / "nnUNetPlans.json"))
    plans["configurations"]["3d_fullres"]["architecture"].update(architecture)
    save_json(plans, str(dataset / "nnUNetPlans.json"), sort_keys=False)
    assert re.search(message, refusal(dataset, name))


@pytest.mark.parametrize("name", ["DKUXNet", "UXNet"])
def test_patches_that_the_strides_do_not_divide(make_dataset, name):
    message = r"cannot train 2d .* \[18, 16\] must be divisible .* \[4, 4\]"
    assert re.search(message, refusal(make_dataset(preprocess=False, patch_2d=(18, 16)), name, "2d"))


def test_regions_have_two_query_groups(make_dataset):
    dataset = make_dataset(preprocess=False, **REGIONS)
    assert "two query groups with regions, not 3" in refusal(dataset, "DKUXNet", hyperparameters={"groups": 3})
    make_trainer(dataset, find_trainer("nnUNetTrainerDKUXNet"), hyperparameters={"groups": 2})
