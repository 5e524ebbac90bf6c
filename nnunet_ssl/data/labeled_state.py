"""Whether nnU-Net's preprocessed labelled cases can have been made with given plans.

nnU-Net does not store which plans a case was made with. Its size and, for normalisation with the statistics of the
dataset, its values tell: they can contradict plans, they cannot prove them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_ssl.data.streams import open_image
from nnunet_ssl.data.unlabeled_store import unlabeled_identifiers

LOOKED_AT = 3  # cases; nnU-Net makes all of them anew in each run, so that a few stand for the others
PREPROCESSOR = "DefaultPreprocessor"  # what others do to the size is not known
RESAMPLING = {"resample_data_or_seg_to_shape", "resample_torch_fornnunet", "resample_torch_simple"}
CT = "CTNormalization"
TOLERANCE = 1e-4  # share of the range that values may have
PLATEAU = 30  # voxels at an extreme value, at the least, that make it a bound at which values were clipped
SHARE = 5e-4  # and the share of all voxels


def contradictions(folder: str, plans: Mapping[str, Any], configuration: str) -> list[str]:
    """What in a preprocessed folder cannot come from these plans, one line per case; empty: nothing speaks against it.

    Args:
        folder: nnU-Net's preprocessed folder of the labelled cases.
        plans: content of a plans file.
        configuration: whose settings are compared.
    """
    manager = PlansManager(dict(plans))
    chosen = manager.get_configuration(configuration)
    if chosen.configuration.get("preprocessor_name") != PREPROCESSOR:
        return []
    problems, images = [], {}
    for case in smallest_cases(folder):
        try:
            properties, image = load_pickle(os.path.join(folder, f"{case}.pkl")), open_image(folder, case)
            expected = expected_size(properties, manager, chosen)
        except Exception:  # damaged, or withheld and without properties: their loading complains where they are needed
            continue
        if expected is not None and tuple(image.shape[1:]) != expected:
            problems.append(f"{case}: size {_size(image.shape[1:])}, with these plans it is {_size(expected)}")
        else:
            images[case] = image
    return problems or _foreign_values(images, manager, chosen)


def older_than(folder: str, plans_file: str) -> bool:
    """Whether the plans file was written after every labelled case; copied files may have any date."""
    planned = os.stat(plans_file).st_mtime_ns
    written = [entry.stat().st_mtime_ns for entry in os.scandir(folder) if entry.name.endswith(".pkl")]
    return bool(written) and max(written) < planned


def smallest_cases(folder: str) -> list[str]:
    """A few cases whose files are the smallest, since whole images are read."""

    def size(case: str) -> int:
        return min(file.stat().st_size for e in ("b2nd", "npz") if (file := Path(folder, f"{case}.{e}")).exists())

    return sorted(sorted(unlabeled_identifiers(folder), key=size)[:LOOKED_AT])


def expected_size(
    properties: Mapping[str, Any], manager: PlansManager, configuration: ConfigurationManager
) -> tuple[int, ...] | None:
    """Voxels per axis after preprocessing, as nnU-Net computes them; None where the resampling is another one."""
    if configuration.configuration["resampling_fn_data"] not in RESAMPLING:
        return None
    size = properties["shape_after_cropping_and_before_resampling"]
    original = [properties["spacing"][axis] for axis in manager.transpose_forward]
    target = list(configuration.spacing)
    if len(target) < len(size):  # 2D plans leave the slices where they are
        target = [original[0], *target]
    return tuple(int(n) for n in compute_new_shape(size, original, target))


def _foreign_values(images: Mapping[str, Any], manager: PlansManager, configuration: ConfigurationManager) -> list[str]:
    problems = []
    for channel, scheme in enumerate(configuration.normalization_schemes):
        if scheme != CT:
            continue
        statistics = manager.foreground_intensity_properties_per_channel[str(channel)]
        low, high = ct_range(statistics)
        slack = TOLERANCE * (high - low)
        plateaus: dict[float, list[str]] = {}
        for case, image in images.items():
            values = np.asarray(image[channel])
            extremes = float(values.min()), float(values.max())
            if extremes[0] < low - slack or extremes[1] > high + slack:
                problems.append(f"{case}: {_values(*extremes)}, these plans allow {low:.3f} to {high:.3f}")
                continue
            for extreme, bound in zip(extremes, (low, high), strict=True):
                if abs(extreme - bound) > slack and _is_clipped_at(extreme, values, statistics):
                    plateaus.setdefault(round(extreme, 4), []).append(case)
        for value, cases in plateaus.items():
            if len(cases) >= min(2, len(images)):  # a bound of one image alone may be its own
                problems += [
                    f"{case}: clipped at {value}, these plans clip at {low:.3f} and {high:.3f}" for case in cases
                ]
    return problems


def ct_range(statistics: Mapping[str, float]) -> tuple[float, float]:
    """Least and greatest value that nnU-Net's CTNormalization leaves."""
    scale = max(statistics["std"], 1e-8)
    low, high = ((statistics[key] - statistics["mean"]) / scale for key in ("percentile_00_5", "percentile_99_5"))
    return low, high


def _is_clipped_at(extreme: float, values: np.ndarray, statistics: Mapping[str, float]) -> bool:
    """Many voxels with the same extreme value, which is none that a scanner saves (a whole number before)."""
    number = np.count_nonzero(np.abs(values - extreme) <= 1e-6 * max(1.0, abs(extreme)))
    before = extreme * statistics["std"] + statistics["mean"]
    precision = 1e-3 + 1e-6 * abs(before)
    return bool(number >= max(PLATEAU, SHARE * values.size) and abs(before - round(before)) > precision)


def _size(shape: Any) -> str:
    return " x ".join(str(int(n)) for n in shape)


def _values(low: float, high: float) -> str:
    return f"values from {low:.3f} to {high:.3f}"
