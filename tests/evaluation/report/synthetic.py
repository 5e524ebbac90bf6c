"""A benchmark folder with known values: control and two methods x 2 splits x 2 folds x 2 seeds, one failed job.

    Dice of a case = BASE + 0.1 (class "box") + 0.02 (seed 1) + 0.1 (split n12) + what the method adds
    HD95 in mm     = 10 * (1 - Dice)

A adds 0.01, 0.02, 0.03, 0.04 to the four cases, B takes 0.1 from each. The job of A with n12, fold 1, seed 1 failed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK
import torch

from nnunet_ssl.data.splits import Fold, Split, Splits, write_splits

DATASET = "Dataset901_Tiny"
CONTROL, METHOD_A, METHOD_B = "nnUNetTrainerSupervised", "nnUNetTrainerMeanTeacher", "nnUNetTrainerSKCDF"
TRAINERS = (METHOD_B, CONTROL, METHOD_A)
FOLDS = {0: ("case_0", "case_1"), 1: ("case_2", "case_3")}
BASE = {"case_0": 0.5, "case_1": 0.6, "case_2": 0.7, "case_3": 0.8}
CLASSES = {"ball": 1, "box": 2}
LABELED = {"n6": (6, 10), "n12": (12, 4)}
FAILED = f"{DATASET}__3d_fullres__{METHOD_A}__n12__fold1__seed1"
SHAPE, SPACING = (6, 24, 30), (1.0, 1.5, 4.0)  # (z, y, x) voxels; (x, y, z) mm

Dice = Callable[[str, str, str, str, int], float]


def known_dice(trainer: str, split: str, case: str, name: str, seed: int) -> float:
    """See the head of this file."""
    dice = BASE[case] - (0.1 if split == "n6" else 0.0) + 0.1 * (name == "box") + 0.02 * seed
    if trainer == METHOD_A:
        dice += 0.01 * (1 + int(case[-1]))
    return dice - 0.1 * (trainer == METHOD_B)


def row(case: str, name: str, dice: float | None, status: str = "ok") -> dict[str, Any]:
    """One row of an evaluation.csv; None: no value."""
    distance = None if dice is None else 10 * (1 - dice)
    overlaps = {"dice": dice, "jaccard": None if dice is None else dice / (2 - dice)}
    distances = {"hd95": distance, "asd": distance, "assd": distance, "nsd": dice}
    what = {"case": case, "class": name, "label": str(CLASSES[name]), "status": status}
    return {**what, **overlaps, **distances, "reference_voxels": 10, "predicted_voxels": 10}


def write_evaluation(folder: Path, rows: list[dict[str, Any]], **content: Any) -> None:
    """evaluation.csv and .json as `nnunet_ssl evaluate` writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / "evaluation.csv", index=False)
    definitions = {"dice": "twice the overlap", "hd95": "a distance"}
    evaluation = {"version": 1, "unit": "mm", "tolerance": 1.0, "definitions": definitions, "cases": rows, **content}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))


def build(
    root: Path,
    *,
    trainers: tuple[str, ...] = TRAINERS,
    splits: Mapping[str, tuple[int, int]] = LABELED,
    folds: Mapping[int, tuple[str, ...]] = FOLDS,
    seeds: tuple[int, ...] = (0, 1),
    dice: Dice = known_dice,
    failed: tuple[str, ...] = (FAILED,),
    pictures: bool = False,
    **record: Any,
) -> Path:
    """Write the folder and return it. ``pictures``: also checkpoints, images, references and predictions."""
    out, jobs = root / "out", []
    for split, (labeled, withheld) in splits.items():
        for trainer in trainers:
            for fold, cases in folds.items():
                for seed in seeds:
                    name = f"{DATASET}__3d_fullres__{trainer}__{split}__fold{fold}__seed{seed}"
                    plans = f"nnUNetPlans_{split}_s{seed}"
                    model = root / "results" / DATASET / f"{trainer}__{plans}__3d_fullres"
                    job = {"dataset": DATASET, "configuration": "3d_fullres", "plans": plans, "trainer": trainer}
                    job |= {"base_plans": "nnUNetPlans", "split": split, "labeled": labeled, "withheld": withheld}
                    job |= {"fold": fold, "seed": seed}
                    jobs.append({**job, "settings_sha256": "abc"})
                    folder = out / "jobs" / name
                    state = "failed" if name in failed else "complete"
                    write_record(folder, job, state, model / f"fold_{fold}", **record)
                    if state == "complete":
                        rows = [row(c, n, dice(trainer, split, c, n, seed)) for c in cases for n in CLASSES]
                        places = {"reference": str(root / "raw" / DATASET / "labelsTr")}
                        places["prediction"] = str(model / f"fold_{fold}" / "validation")
                        write_evaluation(folder, rows, **places)
                        if pictures:
                            write_training(model / f"fold_{fold}", cases, trainer)
    manifest = {"version": 1, "device": "cpu", "datasets": [{"dataset": "901"}], "jobs": jobs}
    (out / "manifest.json").write_text(json.dumps(manifest))
    if pictures:
        write_raw(root, [case for cases in folds.values() for case in cases])
    return out


def write_record(folder: Path, job: dict[str, Any], state: str, results: Path, **more: Any) -> None:
    """A record.json; B takes three times as long per step as the others."""
    folder.mkdir(parents=True, exist_ok=True)
    failed = state == "failed"
    record = {
        "version": 1,
        "job": job,
        "state": state,
        "stages": [{"name": "train", "command": ["nnUNetv2_train"], "exit_code": int(failed), "seconds": 1.0}],
        "seconds": 10.0,
        "peak_memory_mb": 2048.0 + 512 * job["fold"],
        "peak_gpu_memory_mb": None,
        "seconds_per_step": (0.5 + 0.1 * job["fold"]) * (3 if job["trainer"] == METHOD_B else 1),
        "steps": 100,
        "versions": {"nnunet_ssl": "0.1.0", "torch": "2.15.0"},
        "git_revision": "abcdef",
        "device": "cpu",
        "settings": {"split": job["split"], "training": {"num_epochs": 2, "seed": job["seed"]}},
        "settings_sha256": "abc",
        "results_folder": str(results),
        "error": "Traceback\nRuntimeError: out of memory & time_100%\n" if failed else None,
        **more,
    }
    (folder / "record.json").write_text(json.dumps(record))


def write_training(fold: Path, cases: tuple[str, ...], trainer: str) -> None:
    """What the pictures need of a results folder: checkpoint with log, CSV, predictions, dataset.json."""
    (fold / "validation").mkdir(parents=True)
    labels = {"background": 0, **CLASSES}
    content = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 4, "file_ending": ".nii.gz"}
    (fold.parent / "dataset.json").write_text(json.dumps(content))
    shift = TRAINERS.index(trainer)
    dice = [np.float32(value + 0.1 * shift) for value in (0.0, 0.2, 0.3)]
    logging = {"ema_fg_dice": dice, "val_losses": [0.1, -0.2, -0.3 - 0.1 * shift]}
    torch.save({"logging": logging, "network_weights": {}}, fold / "checkpoint_final.pth")
    if trainer != CONTROL:
        log = {"epoch": [0, 1, 2], "foreground": [0.1, 0.2, 0.3], "labeled_foreground": [0.2, 0.2, 0.0]}
        pd.DataFrame({**log, "agreement": [0.7, 0.8, 0.9]}).to_csv(fold / "semi_supervised.csv", index=False)
    for case in cases:
        _write(np.roll(reference(case), shift, axis=2), fold / "validation" / f"{case}.nii.gz")


def write_raw(root: Path, cases: list[str]) -> None:
    """nnUNet_raw with images and labels."""
    generator = np.random.default_rng(0)
    for case in cases:
        label = reference(case)
        image = (100 * label + generator.normal(0, 20, SHAPE)).astype(np.float32)
        _write(image, root / "raw" / DATASET / "imagesTr" / f"{case}_0000.nii.gz")
        _write(label, root / "raw" / DATASET / "labelsTr" / f"{case}.nii.gz")


def reference(case: str) -> np.ndarray:
    """Two boxes side by side; most of them is in slice 3."""
    label = np.zeros(SHAPE, np.uint8)
    label[2:5, 8:14, 8:14] = 1
    label[2:5, 8:14, 14:20] = 2
    label[3, 7:15, 7 : 14 + int(case[-1])] = 1
    return label


def write_subjects(preprocessed: Path, subjects: Mapping[str, str]) -> None:
    """splits_ssl.json with groups; every subject is in one part."""
    folder = preprocessed / DATASET
    folder.mkdir(parents=True)
    cases = [c for cases in FOLDS.values() for c in cases]
    fold = Fold(labeled=["other"], unlabeled=[], val=cases)
    write_splits(
        str(folder), Splits(DATASET, {**subjects, "other": "other"} if subjects else {}, {"n6": Split(0.5, 0, [fold])})
    )


def _write(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    SimpleITK.WriteImage(image, str(path))
