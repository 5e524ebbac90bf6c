"""The real datasets that several files share, planned and preprocessed once, also for several processes of pytest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from filelock import FileLock

from tests.integration.commands import ACDC, DATASET, PATCHES, TRAINING, Project, dump, shrink, subjects


def plan(project: Project, source: Path) -> None:
    shutil.copytree(source / DATASET, project.raw)
    project.run("nnUNetv2_plan_and_preprocess", "-d", 4, "-c", "3d_fullres", "2d", "-np", 1, "-npfp", 1)
    folds = load_json(str(source / "splits_final.json"))
    few = [fold | {"val": fold["val"][:1]} for fold in folds]  # every training validates, at the end of its command
    save_json(few, str(project.preprocessed / "splits_final.json"))
    shrink(project.preprocessed / "nnUNetPlans.json", PATCHES)
    cases = [p.name.removesuffix(".nii.gz") for p in sorted((project.raw / "labelsTr").iterdir())]
    groups = dump(subjects(cases), project.root / "groups.json")
    project.run_each(
        ("nnunet_ssl", "splits", "-d", 4, "--counts", 6, "--groups", groups),
        ("nnunet_ssl", "plans", "-d", 4, "--split", "n6", "--training", *TRAINING),
    )


def plan_acdc(project: Project, source: Path) -> None:
    """8 cases with three classes and thick slices; a small patch, and a network that does not pool the slice axis.

    In the plane at half of the resolution: predicting whole slices would be most of a test's time.
    """
    fold = load_json(str(source / "splits_final.json"))[0]
    fold = {"train": fold["train"][:6], "val": fold["val"][:2]}
    for name, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        (project.raw / name).mkdir(parents=True)
        for case in fold["train"] + fold["val"]:
            shutil.copy(source / ACDC / name / f"{case}{ending}", project.raw / name)
    content = load_json(str(source / ACDC / "dataset.json")) | {"numTraining": 8}
    save_json(content, str(project.raw / "dataset.json"))
    project.preprocessed.mkdir(parents=True)
    save_json([fold], str(project.preprocessed / "splits_final.json"))
    project.run_each(
        ("nnUNetv2_extract_fingerprint", "-d", 27, "-np", 1),
        ("nnUNetv2_plan_experiment", "-d", 27),
    )
    plans = project.preprocessed / "nnUNetPlans.json"
    shrink(plans, {"3d_fullres": [8, 64, 64]}, pool=4)
    content = load_json(str(plans))
    spacing = content["configurations"]["3d_fullres"]["spacing"]
    content["configurations"]["3d_fullres"]["spacing"] = [spacing[0], *(2 * x for x in spacing[1:])]
    save_json(content, str(plans), sort_keys=False)
    project.run_each(
        ("nnUNetv2_preprocess", "-d", 27, "-c", "3d_fullres", "-np", 1),
        ("nnunet_ssl", "splits", "-d", 27, "--counts", 2),
    )


def planned_once(
    dataset: str, plan: Callable[[Project, Path], None], source: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], Project]:
    """f(folder) -> a copy of the planned dataset there, beside what the folder holds."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    template = Project(shared / f"{dataset}_planned", dataset)
    done = shared / f"{dataset}_planned.done"
    with FileLock(str(done) + ".lock"):
        if not done.is_file():
            template.root.mkdir()
            plan(template, source)
            done.touch()

    def copy(folder: Path) -> Project:
        shutil.copytree(template.root, folder, dirs_exist_ok=True)
        return Project(folder, dataset)

    return copy


@pytest.fixture(scope="session")
def hippocampus(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Project]:
    """hippocampus(folder) -> a copy there: 24 cases, of which the split withholds all but 6 of the training cases."""
    return planned_once(DATASET, plan, real_data / "hippocampus_mini", tmp_path_factory)


@pytest.fixture(scope="session")
def acdc(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Project]:
    """acdc(folder) -> a copy there: 8 cases, 2 of them for validation, of which split n2 leaves 2 labelled."""
    if not (real_data / "acdc").is_dir():
        pytest.skip(f"no {real_data / 'acdc'}")
    return planned_once(ACDC, plan_acdc, real_data / "acdc", tmp_path_factory)
