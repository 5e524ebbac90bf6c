"""The real dataset that several files share, planned and preprocessed once, also for several processes of pytest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from tests.integration.commands import DATASET, PATCHES, TRAINING, Project, dump, shrink, subjects


def plan(project: Project, source: Path) -> None:
    shutil.copytree(source / DATASET, project.raw)
    project.run("nnUNetv2_plan_and_preprocess", "-d", 4, "-c", "3d_fullres", "2d", "-np", 1, "-npfp", 1)
    shutil.copy(source / "splits_final.json", project.preprocessed)
    shrink(project.preprocessed / "nnUNetPlans.json", PATCHES)
    cases = [p.name.removesuffix(".nii.gz") for p in sorted((project.raw / "labelsTr").iterdir())]
    groups = dump(subjects(cases), project.root / "groups.json")
    project.run_each(
        ("nnunet_ssl", "splits", "-d", 4, "--counts", 6, "--groups", groups),
        ("nnunet_ssl", "plans", "-d", 4, "--split", "n6", "--training", *TRAINING),
    )


@pytest.fixture(scope="session")
def hippocampus(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Project]:
    """hippocampus(folder) -> a copy there: 24 cases, of which the split withholds all but 6 of the training cases."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    template = Project(shared / "hippocampus_planned", DATASET)
    done = shared / "hippocampus_planned.done"
    with FileLock(str(done) + ".lock"):
        if not done.is_file():
            template.root.mkdir()
            plan(template, real_data / "hippocampus_mini")
            done.touch()

    def copy(folder: Path) -> Project:
        shutil.copytree(template.root, folder)
        return Project(folder, DATASET)

    return copy
