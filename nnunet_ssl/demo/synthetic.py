"""The demo's dataset: small synthetic 3D MR images of the abdomen in nnU-Net's raw format, few of them annotated."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json
from numpy.random import Generator

from nnunet_ssl.data.file_damage import find_damage
from nnunet_ssl.demo.anatomy import ORGANS, draw_patient
from nnunet_ssl.demo.appearance import draw_image
from nnunet_ssl.system.failures import system_errors

FIELD_OF_VIEW = np.array((200.0, 152.0, 164.0))  # millimetres along x, y, z
SPACING = np.array((6.1, 5.9, 6.1))


@dataclass(frozen=True)
class Sizes:
    """How many cases each part of the dataset has.

    With 3, 12 and 4 the demo's two trainings differed by -0.4 to 1.1 points of Dice, with these by 1.9 to 6.4.
    """

    labeled: int = 2
    unlabeled: int = 24
    test: int = 6


STANDARD_SIZES = Sizes()


@dataclass(frozen=True)
class Case:
    """One patient: image (Z, Y, X) float32, labels (Z, Y, X) uint8, spacing (x, y, z) in millimetres."""

    image: np.ndarray
    labels: np.ndarray
    spacing: tuple[float, float, float]


def draw_case(seed: int, number: int) -> Case:
    """Patient ``number`` of the population that ``seed`` defines."""
    rng = np.random.default_rng([seed, number])
    spacing = SPACING * rng.uniform(0.93, 1.07, 3)
    tissue = draw_patient(rng, _scanner_grid(rng, spacing))
    labels = np.where(tissue <= max(ORGANS.values()), tissue, 0).astype(np.uint8)
    return Case(draw_image(rng, tissue), labels, tuple(spacing.round(3).tolist()))


def _scanner_grid(rng: Generator, spacing: np.ndarray) -> np.ndarray:
    """Millimetre coordinates (x, y, z) of every voxel: (3, Z, Y, X), the origin near the centre."""
    size = np.round(FIELD_OF_VIEW / spacing).astype(int)
    x, y, z = ((np.arange(n) - (n - 1) / 2) * s for n, s in zip(size, spacing, strict=True))
    zz, yy, xx = np.meshgrid(z, y, x, indexing="ij")
    return np.stack([xx, yy, zz])


def write_dataset(raw: Path, name: str, seed: int = 0, sizes: Sizes = STANDARD_SIZES) -> Path:
    """Write DatasetXXX_Name in nnU-Net's raw format, the images without labels in ``imagesUn``.

    No label of an unlabelled case is written anywhere. The test cases have theirs in ``labelsTs``, for the evaluation.
    The folder appears when it is complete.

    Args:
        raw: nnU-Net's nnUNet_raw; created if absent.
        name: DatasetXXX_Name.
        seed: of the population. The same seed gives the same files.
        sizes: how many cases of each kind.

    Returns:
        the dataset's folder.

    Raises:
        FileExistsError: there is one already.
        SystemFailure: no space left and the like; nothing is left then.
    """
    final, work = raw / name, raw / f".{name}.partial"
    if final.exists():
        raise FileExistsError(f"{final} exists")
    shutil.rmtree(work, ignore_errors=True)
    try:
        with system_errors(raw):
            _write_files(work, name, seed, sizes)
            os.replace(work, final)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return final


def _write_files(work: Path, name: str, seed: int, sizes: Sizes) -> None:
    number = 0
    for images, labels, count in (
        ("imagesTr", "labelsTr", sizes.labeled),
        ("imagesUn", None, sizes.unlabeled),
        ("imagesTs", "labelsTs", sizes.test),
    ):
        for _ in range(count):
            case = draw_case(seed, number)
            _write_volume(work / images / f"demo_{number:03d}_0000.nii.gz", case.image, case.spacing)
            if labels is not None:
                _write_volume(work / labels / f"demo_{number:03d}.nii.gz", case.labels, case.spacing)
            number += 1
    generate_dataset_json(
        str(work),
        channel_names={0: "MR"},
        labels={"background": 0, **{organ: int(tissue) for organ, tissue in ORGANS.items()}},
        num_training_cases=sizes.labeled,
        file_ending=".nii.gz",
        dataset_name=name,
        description="Synthetic abdominal MR for a demonstration of semi-supervised training; no patient data",
        license="CC0-1.0",
        converted_by="nnunet_ssl demo",
    )


def _write_volume(path: Path, volume: np.ndarray, spacing: tuple[float, float, float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing(spacing)
    with system_errors(path):
        sitk.WriteImage(image, str(path))
        if damage := find_damage(str(path)):  # ITK does not say that a disk is full
            raise RuntimeError(f"{path} {damage}")
