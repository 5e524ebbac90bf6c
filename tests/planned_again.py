"""A tiny dataset after new labels and new planning."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from tests.tiny import CT_INTENSITIES

BRIGHTER = {**CT_INTENSITIES, "mean": 7.031, "std": 1.37, "percentile_00_5": 3.013, "percentile_99_5": 11.283}


def change_plans(base: Path, change: Callable[[dict[str, Any]], None], name: str = "nnUNetPlans") -> None:
    path = base / f"{name}.json"
    plans = load_json(str(path))
    change(plans)
    save_json(plans, str(path), sort_keys=False)


def plan_again(base: Path, name: str = "nnUNetPlans", **settings: Any) -> None:
    """New intensities, as planning with one brighter case more would write them; ``settings`` of 3d_fullres."""

    def change(plans: dict[str, Any]) -> None:
        plans["foreground_intensity_properties_per_channel"] = {"0": copy.deepcopy(BRIGHTER)}
        plans["configurations"]["3d_fullres"].update(settings)

    change_plans(base, change, name)


def preprocess_labeled(base: Path, name: str = "nnUNetPlans", configuration: str = "3d_fullres") -> None:
    """What nnUNetv2_preprocess does, in this process."""
    manager, dataset_json = PlansManager(str(base / f"{name}.json")), json.loads((base / "dataset.json").read_text())
    chosen = manager.get_configuration(configuration)
    raw = base.parents[1] / "nnUNet_raw" / base.name
    folder = base / chosen.data_identifier
    for label in sorted((raw / "labelsTr").iterdir()):
        case = label.name.removesuffix(".nii.gz")
        for file in folder.glob(f"{case}*"):
            file.unlink()
        images = [str(file) for file in sorted((raw / "imagesTr").glob(f"{case}_*"))]
        preprocessor = chosen.preprocessor_class(verbose=False)
        preprocessor.run_case_save(str(folder / case), images, str(label), manager, chosen, dataset_json)
