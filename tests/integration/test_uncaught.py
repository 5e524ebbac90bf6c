"""nnU-Net's own command, with a trainer of ours, on a disk that is full: it says so and prints no traceback."""

from __future__ import annotations

import pytest

from tests.full_disk import small_disk
from tests.integration.commands import Project
from tests.tiny import DATASET

pytestmark = pytest.mark.slow


def test_what_nnunet_writes_meets_a_full_disk(make_dataset):
    base = make_dataset(preprocess=False)
    project = Project(base.parents[1], DATASET)
    with small_disk(project.root / "nnUNet_results", 12):
        train = ("nnUNetv2_train", DATASET, "3d_fullres", 0, "-tr", "nnUNetTrainerSupervised_1epochs", "-device", "cpu")
        said = project.run(*train, fails=True)
    folder = project.results("nnUNetTrainerSupervised_1epochs", "nnUNetPlans", "3d_fullres") / "fold_0"
    assert said.endswith(f"\nNo space left in {folder}.\nFree some space there, then do the same again.\n")
    assert "Traceback" not in said
