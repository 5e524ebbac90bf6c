"""A plan that a CPU can step through, and the folders a trainer wants to see before it initialises."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

DATASET = "Dataset998_Benchmark"


def builtin_plans(dimensions: int) -> tuple[dict, dict]:
    """(plans, dataset.json) of a plain U-Net of half of nnU-Net's width, two convolutions per stage.

    As many stages as nnU-Net's planner gives these patches: it halves an axis while at least 4 positions are left.
    """
    patch = [40, 56, 40] if dimensions == 3 else [192, 160]
    stages = 4 if dimensions == 3 else 6
    configuration = {
        "data_identifier": "nnUNetPlans_benchmark",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2 if dimensions == 3 else 6,
        "patch_size": patch,
        "spacing": [1.0] * dimensions,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": dimensions == 2,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": [16, 32, 64, 128, 256, 256][:stages],
                "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
                "kernel_sizes": [[3] * dimensions] * stages,
                "strides": [[1] * dimensions, *[[2] * dimensions] * (stages - 1)],
                "n_conv_per_stage": [2] * stages,
                "n_conv_per_stage_decoder": [2] * (stages - 1),
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    plans = {
        "dataset_name": DATASET,
        "plans_name": "nnUNetPlans",
        "configurations": {"3d_fullres" if dimensions == 3 else "2d": configuration},
        "label_manager": "LabelManager",
    }
    labels = {"background": 0, "one": 1, "two": 2, "three": 3}
    return plans, {"channel_names": {"0": "mr"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}


def fake_preprocessed(root: Path, plans: dict, configuration: str) -> None:
    """One empty preprocessed case, and nnU-Net's variables pointing below ``root``."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[name] = str(root / name)
        (root / name).mkdir()
    identifier = plans["configurations"][configuration]["data_identifier"]
    folder = root / "nnUNet_preprocessed" / plans["dataset_name"] / identifier
    folder.mkdir(parents=True)
    empty = np.zeros((1, 4, 4, 4), np.float32)
    sizes = {"chunks": empty.shape, "blocks": empty.shape}
    nnUNetDatasetBlosc2.save_case(empty, empty.astype(np.int16), {}, str(folder / "case"), **sizes)
