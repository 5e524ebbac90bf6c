"""A preprocessed dataset in name only: plans and empty files, enough for everything that looks at identifiers."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import settings

from nnunet_ssl.data.splits import content_hash

REPEATABLE = settings(deadline=None, derandomize=True)  # the same examples in every run, however slow the machine
DATASET = "Dataset004_Toy"
CASES = [f"toy_{i:02d}" for i in range(1, 25)]
SUBJECTS = {case: f"subject{(int(case[4:]) + 1) // 2}" for case in CASES}  # 2k-1 and 2k belong together
LABELS = {"background": 0, "outer": 1, "inner": 2}
PLANS = {
    "dataset_name": DATASET,
    "plans_name": "nnUNetPlans",
    "configurations": {
        "2d": {"data_identifier": "nnUNetPlans_2d", "architecture": {}, "batch_size": 8},
        "3d_lowres": {
            "data_identifier": "nnUNetPlans_3d_lowres",
            "architecture": {},
            "next_stage": "3d_cascade_fullres",
        },
        "3d_fullres": {"data_identifier": "nnUNetPlans_3d_fullres", "architecture": {}, "batch_size": 2},
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        "3d_fullres_bs4": {"inherits_from": "3d_fullres", "batch_size": 4},
    },
}


def make_planned(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    cases: Iterable[str] = CASES,
    configurations: Iterable[str] = ("2d", "3d_fullres"),
) -> Path:
    """nnUNet_preprocessed/DATASET with plans and, per case, empty arrays and a label's properties."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (root / variable).mkdir(exist_ok=True)
        monkeypatch.setenv(variable, str(root / variable))
    base = root / "nnUNet_preprocessed" / DATASET
    base.mkdir()
    (base / "nnUNetPlans.json").write_text(json.dumps(PLANS))
    (base / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "MRI"}, "labels": LABELS, "file_ending": ".nii.gz"})
    )
    for configuration in configurations:
        folder = base / f"nnUNetPlans_{configuration}"
        folder.mkdir()
        for case in cases:
            for suffix in (".b2nd", "_seg.b2nd"):
                (folder / f"{case}{suffix}").touch()
            show(folder, case, *LABELS.values())
    return base


def show(folder: Path, case: str, *labels: int) -> None:
    """Let the preprocessed label of a case show these classes and no other."""
    locations = {value: [[0, 0, 0, 0]] if value in labels else [] for value in LABELS.values() if value}
    (folder / f"{case}.pkl").write_bytes(pickle.dumps({"class_locations": locations}))


def write_nnunet_folds(base: Path, folds: list[tuple[list[str], list[str]]]) -> Path:
    path = base / "splits_final.json"
    path.write_text(json.dumps([{"train": train, "val": val} for train, val in folds]))
    return path


def edit(base: Path, change, rehash: bool) -> None:
    """Apply ``change`` to the content of splits_ssl.json in place, with or without a fitting hash."""
    path = base / "splits_ssl.json"
    content = json.loads(path.read_text())
    change(content)
    if rehash:
        content["sha256"] = content_hash(content)
    path.write_text(json.dumps(content))
