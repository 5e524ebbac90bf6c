"""What `nnunet_ssl preprocess` refuses, with which words."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

from nnunet_ssl.data.unlabeled import unlabeled_identifiers
from nnunet_ssl.data.unlabeled_store import SCRATCH, open_for_writing
from nnunet_ssl.errors import SemiSupervisedError
from tests.data.unlabeled_helpers import (
    CASES,
    edit,
    folder_of,
    images_of,
    preprocess,
    volume,
)
from tests.tiny import write_image


def refusal(**options) -> str:
    with pytest.raises(SemiSupervisedError) as caught:
        preprocess(**options)
    return str(caught.value)


def test_all_bad_cases_are_named_and_nothing_is_done(make_dataset):
    dataset = make_dataset(preprocess=False, channels=2)
    images, labeled = images_of(dataset), images_of(dataset, "imagesTr")
    for channel in (0, 1):
        shutil.copy(labeled / f"tiny_001_{channel:04d}.nii.gz", images)
    (images / "extra_001_0001.nii.gz").unlink()
    truncated = images / "extra_002_0000.nii.gz"
    truncated.write_bytes(truncated.read_bytes()[:4000])
    bad = volume(1)
    bad[3, 3, 3] = np.nan
    for channel in (0, 1):
        write_image(bad, images / f"nan_{channel:04d}.nii.gz", (1.0, 1.0, 1.0))
    (images / "photo.png").write_bytes(b"x")
    shutil.copy(images / "extra_000_0000.nii.gz", images / "unnumbered.nii.gz")
    message = refusal()
    for expected in (
        "photo.png: wrong file ending",
        "unnumbered.nii.gz: the channel is missing",
        "tiny_001: also a labelled case (in imagesTr)",
        "extra_001: wrong number of channels: 1 in 1 file(s), needed 2 (mr0, mr1); missing extra_001_0001.nii.gz",
        "extra_002: extra_002_0000.nii.gz is truncated",
        "nan: nan_0000.nii.gz has 1 NaN",
    ):
        assert expected in message
    assert "extra_000:" not in message
    assert not folder_of(dataset).exists()


def test_finished_cases_do_not_hide_a_bad_one(make_dataset):
    dataset = make_dataset(preprocess=False)
    preprocess()
    (images_of(dataset) / "extra_000_0000.nii.gz").write_bytes(b"")
    assert "extra_000_0000.nii.gz is empty" in refusal()
    assert unlabeled_identifiers(str(folder_of(dataset))) == CASES


def test_case_of_the_preprocessed_folder_where_raw_data_are_gone(make_dataset, monkeypatch):
    dataset = make_dataset(preprocess=False)
    images = images_of(dataset)
    shutil.copy(images / "extra_000_0000.nii.gz", images / "tiny_002_0000.nii.gz")
    monkeypatch.delenv("nnUNet_raw")
    assert "tiny_002: also a labelled case" in refusal(input_folder=str(images))


def test_case_in_the_list_of_dataset_json(make_dataset):
    dataset = make_dataset(preprocess=False)
    edit(dataset / "dataset.json", dataset={"extra_002": {"images": ["elsewhere.nii.gz"], "label": "x.nii.gz"}})
    assert "extra_002: also a labelled case (in dataset.json)" in refusal()


def test_no_folder_no_images(make_dataset):
    dataset = make_dataset(preprocess=False, unlabeled=0)
    assert "does not exist" in refusal()
    images_of(dataset).mkdir()
    assert "no image in" in refusal()


def test_variables_not_set(make_dataset, monkeypatch):
    make_dataset(preprocess=False)
    monkeypatch.delenv("nnUNet_raw")
    assert "nnUNet_raw is not set" in refusal()
    monkeypatch.delenv("nnUNet_preprocessed")
    assert "nnUNet_preprocessed is not set" in refusal()


def test_labelled_data_not_preprocessed(make_dataset):
    dataset = make_dataset(preprocess=False)
    command = "Run: nnUNetv2_preprocess -d 901 -plans_name nnUNetPlans -c"
    assert f"{command} 3d_lowres" in refusal(configurations=["3d_lowres"])
    shutil.rmtree(dataset / "nnUNetPlans_3d_fullres")
    shutil.rmtree(dataset / "nnUNetPlans_2d")
    assert f"{command} CONFIGURATION" in refusal(configurations=None)
    (dataset / "nnUNetPlans.json").unlink()
    assert (
        "Run: nnUNetv2_plan_and_preprocess -d 901 -c 3d_fullres --clean   (without --clean nnU-Net keeps" in refusal()
    )
    assert "Plans of this dataset: none" in refusal(plans_identifier="nnUNetResEncUNetMPlans")
    shutil.rmtree(dataset)
    assert "Run: nnUNetv2_plan_and_preprocess" in refusal()


def test_unknown_configuration_lists_the_known(make_dataset):
    make_dataset(preprocess=False)
    message = refusal(configurations=["3d_fullres", "4d"])
    assert "no configuration 4d" in message and "2d, 3d_fullres, 3d_cascade_fullres, 3d_lowres" in message


def test_configurations_that_share_data_but_not_the_way_they_are_made(make_dataset):
    dataset = make_dataset(preprocess=False)
    plans = load_json(str(dataset / "nnUNetPlans.json"))
    plans["configurations"]["coarse"] = {"inherits_from": "3d_fullres", "spacing": [2.0, 2.0, 2.0]}
    save_json(plans, str(dataset / "nnUNetPlans.json"), sort_keys=False)
    assert "3d_fullres, coarse (data identifier nnUNetPlans_3d_fullres)" in refusal(
        configurations=["3d_fullres", "coarse"]
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "dataset.json is not readable JSON"),
        ("[]", "dataset.json must hold a dictionary"),
        ('{"labels": {}}', "dataset.json lacks file_ending and channel_names"),
        ('{"labels": [], "file_ending": ".png", "channel_names": {}}', '"labels" is []'),
    ],
)
def test_damaged_dataset_json(make_dataset, text, words):
    dataset = make_dataset(preprocess=False)
    (dataset / "dataset.json").write_text(text)
    message = refusal()
    assert words in message and str(dataset) in message


def test_plans_without_a_reader(make_dataset):
    dataset = make_dataset(preprocess=False)
    plans = load_json(str(dataset / "nnUNetPlans.json"))
    del plans["image_reader_writer"], plans["foreground_intensity_properties_per_channel"]
    save_json(plans, str(dataset / "nnUNetPlans.json"), sort_keys=False)
    text = "nnUNetPlans.json lacks image_reader_writer, foreground_intensity_properties_per_channel."
    assert text in refusal()


def test_classes_that_this_nnunet_lacks(make_dataset):
    dataset = make_dataset(preprocess=False)
    plans = edit(dataset / "nnUNetPlans.json", image_reader_writer="MyReader")
    plans["configurations"]["3d_fullres"]["preprocessor_name"] = "MyPreprocessor"
    save_json(plans, str(dataset / "nnUNetPlans.json"), sort_keys=False)
    message = refusal()
    assert "MyReader" in message and "MyPreprocessor" in message


def test_failures_of_the_preprocessor_are_collected(make_dataset, monkeypatch):
    dataset = make_dataset(preprocess=False)
    original = DefaultPreprocessor.run_case

    def run_case(self, images, *args):
        if "extra_001" in images[0]:
            raise ValueError("odd image")
        return original(self, images, *args)

    monkeypatch.setattr(DefaultPreprocessor, "run_case", run_case)
    message = refusal()
    assert "1 of 3 cases" in message and "extra_001: ValueError" in message and "odd image" in message
    assert unlabeled_identifiers(str(folder_of(dataset))) == ["extra_000", "extra_002"]
    assert not (folder_of(dataset) / SCRATCH).exists()


def test_a_second_run_at_the_same_time(make_dataset):
    dataset = make_dataset(preprocess=False)
    with open_for_writing(str(folder_of(dataset))):
        assert "Another `nnunet_ssl preprocess`" in refusal()
    preprocess()
    with open_for_writing(str(folder_of(dataset))) as scratch:
        preprocess()  # nothing is to do, so nobody is in the way
        assert os.path.isdir(scratch)
