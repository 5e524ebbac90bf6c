"""A tiny synthetic dataset in nnU-Net's folders, preprocessed by nnU-Net's own preprocessor with hand-written plans.

Planning takes seconds, this takes fractions of one, and patch size and network are small enough to train on a CPU.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK
from batchgenerators.utilities.file_and_folder_operations import save_json
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from scipy.ndimage import gaussian_filter

DATASET = "Dataset901_Tiny"
INTENSITIES = {
    "max": 3.0,
    "mean": 1.0,
    "median": 1.0,
    "min": -1.0,
    "percentile_00_5": -1.0,
    "percentile_99_5": 3.0,
    "std": 1.0,
}


CT_INTENSITIES = {
    "max": 9.1,
    "mean": 6.3,
    "median": 6.2,
    "min": 2.1,
    "percentile_00_5": 4.03,
    "percentile_99_5": 7.87,
    "std": 0.91,
}


@dataclass(frozen=True)
class Tiny:
    """What to build. Cases: labeled tiny_000.., unlabelled images extra_000.. in imagesUn."""

    labeled: int = 6
    unlabeled: int = 3
    shape: tuple[int, int, int] = (20, 22, 18)
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channels: int = 1
    labels: dict = field(default_factory=lambda: {"background": 0, "ball": 1, "box": 2})
    regions_class_order: tuple[int, ...] | None = None
    patch_3d: tuple[int, ...] = (16, 16, 16)
    patch_2d: tuple[int, ...] = (16, 16)
    mask_normalization: bool = False
    ct: bool = False  # normalised with intensities of the dataset, which clip some voxels of every case
    features: tuple[int, int, int] = (4, 8, 8)
    residual: bool = False  # ResidualEncoderUNet instead of PlainConvUNet
    sizes: tuple[int, ...] = ()  # voxels of class 1, 2, ... in every case, instead of the ball and the box

    @property
    def has_ignore(self) -> bool:
        return "ignore" in self.labels


def case_arrays(tiny: Tiny, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(image (C, *shape) float32, label (*shape) uint8): a bright ball, a darker box, smooth noise; or `sizes`."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(s) for s in tiny.shape], indexing="ij"))
    label = np.zeros(tiny.shape, np.uint8)
    center = np.array(tiny.shape) / 2 + rng.uniform(-2, 2, 3)
    radii = np.array(tiny.shape) / 4
    label[sum(((g - c) / r) ** 2 for g, c, r in zip(grid, center, radii, strict=True)) < 1] = 1
    corner = [int(rng.integers(1, 3)) for _ in range(3)]
    label[tuple(slice(c, c + max(2, s // 4)) for c, s in zip(corner, tiny.shape, strict=True))] = 2
    if tiny.sizes:
        label.flat[:] = 0
        first = int(rng.integers(label.size - sum(tiny.sizes)))
        label.flat[first : first + sum(tiny.sizes)] = np.repeat(np.arange(1, len(tiny.sizes) + 1), tiny.sizes)
    image = np.stack(
        [
            gaussian_filter(label * (1.0 + c) + rng.normal(0, 1.0, tiny.shape), 0.6) + 0.1 * c
            for c in range(tiny.channels)
        ]
    ).astype(np.float32)
    if tiny.has_ignore:
        label[:, :, -3:] = tiny.labels["ignore"]
    return image + 5.0, label


def plans_of(tiny: Tiny) -> dict:
    def configuration(dimensions: int) -> dict:
        patch = tiny.patch_3d if dimensions == 3 else tiny.patch_2d
        spacing = [1.0] * 3 if tiny.spacing == (1.0, 1.0, 1.0) else list(tiny.spacing)
        return {
            "data_identifier": f"nnUNetPlans_{'3d_fullres' if dimensions == 3 else '2d'}",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": list(patch),
            "median_image_size_in_voxels": [float(s) for s in tiny.shape[-dimensions:]],
            "spacing": spacing[-dimensions:],
            "normalization_schemes": ["CTNormalization" if tiny.ct else "ZScoreNormalization"] * tiny.channels,
            "use_mask_for_norm": [tiny.mask_normalization] * tiny.channels,
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_seg": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
            "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet."
                + ("ResidualEncoderUNet" if tiny.residual else "PlainConvUNet"),
                "arch_kwargs": {
                    "n_stages": 3,
                    "features_per_stage": list(tiny.features),
                    "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
                    "kernel_sizes": [[3] * dimensions] * 3,
                    "strides": strides(patch),
                    "n_blocks_per_stage" if tiny.residual else "n_conv_per_stage": [1, 1, 1],
                    "n_conv_per_stage_decoder": [1, 1],
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
            "batch_dice": dimensions == 2,
        }

    return {
        "dataset_name": DATASET,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": list(tiny.spacing),
        "original_median_shape_after_transp": list(tiny.shape),
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            "2d": configuration(2),
            "3d_fullres": configuration(3),
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
            "3d_lowres": {
                **configuration(3),
                "data_identifier": "nnUNetPlans_3d_lowres",
                "next_stage": "3d_cascade_fullres",
            },
        },
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(c): CT_INTENSITIES if tiny.ct else INTENSITIES for c in range(tiny.channels)
        },
    }


def strides(patch: tuple[int, ...]) -> list[list[int]]:
    """Two poolings that leave a thin axis alone, as nnU-Net plans anisotropic data."""
    pool = [2 if p > 8 else 1 for p in patch]
    return [[1] * len(patch), pool, pool]


def write_image(array: np.ndarray, path: Path, spacing: tuple[float, float, float]) -> None:
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(tuple(reversed(spacing)))
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path))


def write_images(image: np.ndarray, folder: Path, case: str, spacing: tuple[float, float, float]) -> list[str]:
    files = [folder / f"{case}_{c:04d}.nii.gz" for c in range(len(image))]
    for channel, file in zip(image, files, strict=True):
        write_image(channel, file, spacing)
    return [str(f) for f in files]


def build(root: Path, tiny: Tiny, configurations: tuple[str, ...] = ("3d_fullres", "2d")) -> None:
    """Write nnUNet_raw, nnUNet_preprocessed (labelled and unlabelled cases) and an empty nnUNet_results below root."""
    raw, preprocessed = root / "nnUNet_raw" / DATASET, root / "nnUNet_preprocessed" / DATASET
    (root / "nnUNet_results").mkdir(parents=True)
    preprocessed.mkdir(parents=True)
    dataset_json = {
        "channel_names": {str(c): f"mr{c}" for c in range(tiny.channels)},
        "labels": {k: list(v) if isinstance(v, tuple) else v for k, v in tiny.labels.items()},
        "numTraining": tiny.labeled,
        "file_ending": ".nii.gz",
    }
    if tiny.regions_class_order is not None:
        dataset_json["regions_class_order"] = list(tiny.regions_class_order)
    plans = plans_of(tiny)
    raw.mkdir(parents=True)
    save_json(dataset_json, str(raw / "dataset.json"))
    save_json(dataset_json, str(preprocessed / "dataset.json"))
    save_json(plans, str(preprocessed / "nnUNetPlans.json"), sort_keys=False)
    fingerprint = {
        "spacings": [list(tiny.spacing)] * tiny.labeled,
        "shapes_after_crop": [list(tiny.shape)] * tiny.labeled,
        "foreground_intensity_properties_per_channel": plans["foreground_intensity_properties_per_channel"],
        "median_relative_size_after_cropping": 1.0,
    }
    save_json(fingerprint, str(preprocessed / "dataset_fingerprint.json"))
    manager = PlansManager(plans)
    for index in range(tiny.labeled):
        image, label = case_arrays(tiny, index)
        case = f"tiny_{index:03d}"
        files = write_images(image, raw / "imagesTr", case, tiny.spacing)
        label_file = raw / "labelsTr" / f"{case}.nii.gz"
        write_image(label, label_file, tiny.spacing)
        (preprocessed / "gt_segmentations").mkdir(exist_ok=True)
        shutil.copy(label_file, preprocessed / "gt_segmentations")
        for name in configurations:
            configuration = manager.get_configuration(name)
            folder = preprocessed / configuration.data_identifier
            folder.mkdir(exist_ok=True)
            preprocessor = configuration.preprocessor_class(verbose=False)
            preprocessor.run_case_save(str(folder / case), files, str(label_file), manager, configuration, dataset_json)
    for index in range(tiny.unlabeled):
        image, _ = case_arrays(tiny, 1000 + index)
        write_images(image, raw / "imagesUn", f"extra_{index:03d}", tiny.spacing)
