"""Three annotated cases and three images without labels, from the refusal to predictions, with the real commands."""

from __future__ import annotations

import pytest

from tests.integration.commands import MEAN_TEACHER, TRAINING, Project, inputs, segmentation
from tests.tiny import DATASET

pytestmark = pytest.mark.slow


def test_from_three_annotated_cases_to_predictions(make_dataset, tmp_path):
    base = make_dataset(labeled=3, preprocess=False)
    project = Project(base.parents[1], DATASET)
    words = ("-c", "3d_fullres", "-tr", MEAN_TEACHER, "-p", "nnUNetPlans_short", "-device", "cpu")
    train = ("nnUNetv2_train", DATASET, "3d_fullres")
    project.run_each(
        ("nnunet_ssl", "preprocess", "-d", 901, "-c", "3d_fullres", "-np", 1),
        ("nnunet_ssl", "plans", "-d", 901, "--name", "nnUNetPlans_short", "--training", *TRAINING),
    )
    refused = project.run(*train, 0, *words[2:], fails=True)
    command = "nnunet_ssl splits -d 901 --folds 3"
    assert "3 labelled cases are too few for nnU-Net's 5 folds" in refused and command in refused
    assert "Traceback" not in refused  # nnU-Net's command ends as ours do
    assert not list((project.root / "nnUNet_results").iterdir())
    predict = ("nnUNetv2_predict", "-d", 901, *words, "-i", inputs(project, tmp_path / "in"), "-npp", 1, "-nps", 1)
    output = project.run_each(
        tuple(command.split()),
        (*train, 0, *words[2:]),
        (*predict, "-f", 0, "-o", tmp_path / "out_0"),
        (*train, "all", *words[2:]),  # the other way that the message names
        (*predict, "-f", "all", "-o", tmp_path / "out_all"),
    )
    assert "The split file contains 3 splits." in output and "Unlabelled pool: 3 cases, 0 of them withheld" in output
    for fold in ("0", "all"):
        results = project.results(MEAN_TEACHER, "nnUNetPlans_short", "3d_fullres") / f"fold_{fold}"
        assert (results / "validation" / "summary.json").is_file()
        (first, second) = sorted((tmp_path / f"out_{fold}").glob("*.nii.gz"))
        assert segmentation(first).shape == segmentation(second).shape == (20, 22, 18)
