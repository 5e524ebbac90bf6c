"""A plan that a CPU can step through."""

from __future__ import annotations

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
