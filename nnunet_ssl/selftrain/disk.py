"""How much disk predictions and students' data will take, before anything is predicted."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass

import SimpleITK
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ssl.data.folders import existing_part
from nnunet_ssl.data.quiet import captured_output
from nnunet_ssl.selftrain.run import Run

LABEL = 0.02  # bytes per voxel of a compressed label map; small structures in large images take less
PROBABILITY = 2.0  # bytes per voxel and class: float32, which zip about halves
PREPROCESSED = 4.0  # bytes per voxel of image and label, float32 and int16 after blosc2
GIGABYTE = 1e9


@dataclass(frozen=True)
class Estimate:
    """Bytes of one round: predictions in OUT, the students' data in nnUNet_preprocessed."""

    predictions: float
    preprocessed: float

    @property
    def text(self) -> str:
        return f"about {size(self.predictions)} of predictions and {size(self.preprocessed)} of preprocessed data"


def size(number: float) -> str:
    """1.5e9 -> "1.5 GB"."""
    return f"{number / GIGABYTE:.1f} GB" if number >= 0.05 * GIGABYTE else f"{number / 1e6:.0f} MB"


def estimate(run: Run) -> Estimate:
    """Of one round in which every case is kept."""
    settings = run.settings
    voxels = sum(_voxels(files[0]) for files in run.pool.values())
    maps = settings.n_teachers + 1
    predictions = LABEL * voxels * maps
    if settings.needs_probabilities:
        predictions += PROBABILITY * voxels * (len(run.labels.classes) + 1) * maps
    configuration = PlansManager(run.student_plans).get_configuration(settings.configuration)
    shape = list(configuration.median_image_size_in_voxels)
    if len(shape) == 2:
        shape = [run.student_plans["original_median_shape_after_transp"][0], *shape]
    cases = len(run.labeled) + len(run.pool)
    channels = len(run.dataset_json.get("channel_names", run.dataset_json.get("modality", {})))
    return Estimate(predictions, PREPROCESSED * cases * math.prod(shape) * (channels + 0.5))


def problems(run: Run, rounds: int) -> list[str]:
    """Where there is not enough space for so many rounds, one line per file system."""
    one = estimate(run)
    wanted = {run.output: one.predictions * rounds, str(nnUNet_preprocessed): one.preprocessed * rounds}
    by_device: dict[int, list[str]] = {}
    for folder in wanted:
        by_device.setdefault(os.stat(existing_part(folder)).st_dev, []).append(folder)
    found = []
    for folders in by_device.values():
        needed, free = sum(wanted[f] for f in folders), shutil.disk_usage(existing_part(folders[0])).free
        if needed > free:
            probabilities = ", with probabilities" if run.settings.needs_probabilities else ""
            found.append(
                f"{' and '.join(folders)}: {size(needed)} are needed for {rounds} rounds of {len(run.pool)} cases"
                f"{probabilities}, {size(free)} are free"
            )
    return found


def _voxels(path: str) -> int:
    """By the header; where SimpleITK does not know the format, as many as the file has bytes."""
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(path)
    try:
        with captured_output():
            reader.ReadImageInformation()
    except RuntimeError:
        return os.path.getsize(path)
    return math.prod(reader.GetSize())
