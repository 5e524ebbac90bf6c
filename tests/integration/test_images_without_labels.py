"""Real data through the real commands: 6 labelled cases, and images that have no label file anywhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from batchgenerators.utilities.file_and_folder_operations import load_json

from tests.integration.commands import DATASET, MEAN_TEACHER, PATCHES, TRAINING, Project, dump, inputs, shrink

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def unlabeled(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """6 labelled cases; the other images lie in imagesUn and have no label file anywhere."""
    project = Project(tmp_path_factory.mktemp("unlabeled"), DATASET)
    source = real_data / "hippocampus_mini"
    labeled = load_json(str(source / "ssl_splits.json"))["fractions"]["25%"]["labelled"]
    for folder in ("imagesTr", "labelsTr", "imagesUn"):
        (project.raw / folder).mkdir(parents=True)
    dataset_json = load_json(str(source / DATASET / "dataset.json"))
    dump({**dataset_json, "numTraining": len(labeled)}, project.raw / "dataset.json")
    for image in (source / DATASET / "imagesTr").iterdir():
        case = image.name.removesuffix("_0000.nii.gz")
        shutil.copy(image, project.raw / ("imagesTr" if case in labeled else "imagesUn"))
        if case in labeled:
            shutil.copy(source / DATASET / "labelsTr" / f"{case}.nii.gz", project.raw / "labelsTr")
    project.run(
        "nnUNetv2_plan_and_preprocess", "-d", 4, "-c", "3d_fullres", "-np", 1, "-npfp", 1, "--verify_dataset_integrity"
    )
    shrink(project.preprocessed / "nnUNetPlans.json", PATCHES)
    return project


def test_images_without_any_label(unlabeled: Project, tmp_path: Path):
    unlabeled.run("nnunet_ssl", "plans", "-d", 4, "--name", "nnUNetPlans_short", "--training", *TRAINING,
                  "--hyperparameters", f"{MEAN_TEACHER}:student_view=strong")  # fmt: skip
    options = (4, "3d_fullres", 0, "-tr", MEAN_TEACHER, "-p", "nnUNetPlans_short", "-device", "cpu")
    refused = unlabeled.run("nnUNetv2_train", *options, fails=True)
    assert "Run: nnunet_ssl preprocess -d 4 -c 3d_fullres" in refused
    unlabeled.run("nnunet_ssl", "preprocess", "-d", 4, "-c", "3d_fullres", "-np", 2)
    assert len(list((unlabeled.preprocessed / "nnUNetPlans_3d_fullres__unlabeled").glob("*[0-9].b2nd"))) == 18
    output = unlabeled.run("nnUNetv2_train", *options, nnUNet_n_proc_DA="2")
    assert "Unlabelled pool: 18 cases, 0 of them withheld" in output
    unlabeled.run("nnUNetv2_predict", "-d", 4, "-c", "3d_fullres", "-f", 0, "-tr", MEAN_TEACHER,
                  "-p", "nnUNetPlans_short", "-i", inputs(unlabeled, tmp_path / "in"), "-o", tmp_path / "out",
                  "-device", "cpu", "-npp", 1, "-nps", 1)  # fmt: skip
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 2
