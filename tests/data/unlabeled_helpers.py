"""A tiny dataset with images without labels, and shorthands around `preprocess_unlabeled`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_ssl.data.unlabeled import preprocess_unlabeled
from tests.tiny import DATASET, Tiny, case_arrays

CASES = ["extra_000", "extra_001", "extra_002"]
IGNORE = {"background": 0, "ball": 1, "box": 2, "ignore": 3}


def images_of(dataset: Path, part: str = "imagesUn") -> Path:
    return dataset.parents[1] / "nnUNet_raw" / DATASET / part


def folder_of(dataset: Path, configuration: str = "3d_fullres") -> Path:
    return dataset / f"nnUNetPlans_{configuration}__unlabeled"


def preprocess(configurations=("3d_fullres",), **options) -> list[str]:
    return preprocess_unlabeled(DATASET, configurations, num_processes=1, **options)


def edit(path: Path, **changes) -> dict:
    content = load_json(str(path))
    content.update(changes)
    save_json(content, str(path), sort_keys=False)
    return content


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change: both differ for a file that was made again."""
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.iterdir()}


def image_in(folder: Path, case: str) -> np.ndarray:
    return nnUNetDatasetBlosc2(str(folder)).load_case(case)[0][:]


def volume(seed: int) -> np.ndarray:
    """One channel of a case of the tiny dataset."""
    return case_arrays(Tiny(), seed)[0][0]
