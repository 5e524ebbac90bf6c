"""Repeating `nnunet_ssl preprocess`: what is finished and unchanged is skipped."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetNumpy

from nnunet_ssl.data.unlabeled import unlabeled_identifiers
from nnunet_ssl.data.unlabeled_store import SCRATCH
from nnunet_ssl.errors import SemiSupervisedError
from tests.data.unlabeled_helpers import (
    CASES,
    folder_of,
    image_in,
    images_of,
    preprocess,
    snapshot,
    volume,
)
from tests.tiny import write_image


def test_a_rerun_does_nothing(make_dataset, capsys):
    dataset = make_dataset(preprocess=False)
    preprocess()
    before = snapshot(folder_of(dataset))
    capsys.readouterr()
    preprocess()
    assert snapshot(folder_of(dataset)) == before
    printed = capsys.readouterr()
    assert "3 finished before, 0 to do" in printed.out and "Checking" not in printed.err


def test_a_rerun_with_nothing_to_do_writes_nothing(make_dataset, monkeypatch):
    dataset = make_dataset(preprocess=False)
    preprocess()

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(args[0]))

    with monkeypatch.context() as read_only:
        for name in ("mkdir", "makedirs", "replace", "remove", "open"):
            read_only.setattr(os, name, refuse)
        assert preprocess() == [str(folder_of(dataset))]
    left = folder_of(dataset) / SCRATCH / "case"  # by a killed run
    left.mkdir(parents=True)
    preprocess()
    assert not left.parent.exists()


def test_a_case_may_have_any_name(make_dataset):
    dataset = make_dataset(preprocess=False)
    for name in ("lock", "cases", "tmp"):
        shutil.copy(images_of(dataset) / "extra_000_0000.nii.gz", images_of(dataset) / f"{name}_0000.nii.gz")
    preprocess()
    assert unlabeled_identifiers(str(folder_of(dataset))) == sorted([*CASES, "lock", "cases", "tmp"])


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"spacings": [1], "shapes_after_crop": [[1, 2, 3]]}'])
def test_a_damaged_fingerprint_is_a_warning(make_dataset, capsys, text):
    dataset = make_dataset(preprocess=False)
    (dataset / "dataset_fingerprint.json").write_text(text)
    preprocess()
    warning = capsys.readouterr().err
    assert "dataset_fingerprint.json cannot be used (" in warning and "spacing and size are not compared" in warning
    assert unlabeled_identifiers(str(folder_of(dataset))) == CASES


def test_only_new_and_changed_images_are_made(make_dataset, capsys):
    dataset = make_dataset(preprocess=False)
    preprocess()
    before = snapshot(folder_of(dataset))
    old_image = image_in(folder_of(dataset), "extra_001")
    write_image(volume(5), images_of(dataset) / "extra_001_0000.nii.gz", (1.0, 1.0, 1.0))
    write_image(volume(6), images_of(dataset) / "new_0000.nii.gz", (1.0, 1.0, 1.0))
    capsys.readouterr()
    preprocess()
    assert "2 finished before, 2 to do (extra_001 again: the image or the settings changed)" in capsys.readouterr().out
    after = snapshot(folder_of(dataset))
    assert {name for name in after if before.get(name) != after[name]} == {
        f"{case}{part}" for case in ("extra_001", "new") for part in (".b2nd", "_seg.b2nd", ".pkl")
    }
    assert not np.array_equal(image_in(folder_of(dataset), "extra_001"), old_image)


def test_overwrite_makes_all(make_dataset):
    dataset = make_dataset(preprocess=False)
    preprocess()
    before = snapshot(folder_of(dataset))
    preprocess(overwrite=True)
    after = snapshot(folder_of(dataset))
    assert before.keys() == after.keys() and all(before[name] != after[name] for name in before)


@pytest.mark.parametrize(
    ("changes", "made_again"),
    [
        ({"use_mask_for_norm": [True]}, True),
        ({"normalization_schemes": ["RescaleTo01Normalization"]}, True),
        ({"resampling_fn_data_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}}, True),
        ({"batch_size": 7, "patch_size": [8, 8, 8]}, False),
    ],
)
def test_changed_plans(make_dataset, changes, made_again):
    dataset = make_dataset(preprocess=False)
    preprocess()
    before = snapshot(folder_of(dataset))
    plans = load_json(str(dataset / "nnUNetPlans.json"))
    plans["configurations"]["3d_fullres"].update(changes)
    save_json(plans, str(dataset / "nnUNetPlans.json"), sort_keys=False)
    preprocess()
    assert (snapshot(folder_of(dataset)) != before) == made_again


def test_a_copy_of_the_plans_needs_no_preprocessing(make_dataset):
    dataset = make_dataset(preprocess=False)
    preprocess()
    before = snapshot(folder_of(dataset))
    copy = load_json(str(dataset / "nnUNetPlans.json"))
    copy.update(plans_name="nnUNetPlans_l10", nnunet_ssl={"split": "l10"})
    save_json(copy, str(dataset / "nnUNetPlans_l10.json"), sort_keys=False)
    preprocess(plans_identifier="nnUNetPlans_l10")
    assert snapshot(folder_of(dataset)) == before


def test_images_from_elsewhere(make_dataset, tmp_path, capsys):
    dataset = make_dataset(preprocess=False)
    preprocess()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(images_of(dataset) / "extra_000_0000.nii.gz", elsewhere / "other_0000.nii.gz")
    shutil.copytree(elsewhere, images_of(dataset, "imagesTs"))
    capsys.readouterr()
    preprocess(input_folder=str(elsewhere))
    assert unlabeled_identifiers(str(folder_of(dataset))) == [*CASES, "other"]
    printed = capsys.readouterr()
    assert f"{folder_of(dataset)} also holds 3 cases that are not in {elsewhere}. They stay in the" in printed.out
    assert "Warning: 1 of 1 cases are also in imagesTs" in printed.err and "transductive" in printed.err
    assert not any(case in printed.out + printed.err for case in CASES)  # hundreds on each run, in practice


def test_another_file_format_of_a_preprocessor(make_dataset, monkeypatch):
    def run_case_save(self, output, images, seg, plans, configuration, dataset_json):
        data, seg, properties = self.run_case(images, seg, plans, configuration, dataset_json)
        nnUNetDatasetNumpy.save_case(data, seg, properties, output)

    monkeypatch.setattr(DefaultPreprocessor, "run_case_save", run_case_save)
    dataset = make_dataset(preprocess=False)
    preprocess()
    assert unlabeled_identifiers(str(folder_of(dataset))) == CASES
    nnUNetDatasetNumpy.unpack_dataset(str(folder_of(dataset)), num_processes=1)
    write_image(volume(5), images_of(dataset) / "extra_001_0000.nii.gz", (1.0, 1.0, 1.0))
    preprocess()
    stored = np.load(folder_of(dataset) / "extra_001.npz")["data"]
    assert np.array_equal(nnUNetDatasetNumpy(str(folder_of(dataset))).load_case("extra_001")[0], stored)


def test_two_formats_in_one_folder(tmp_path):
    (tmp_path / "a.b2nd").touch()
    (tmp_path / "b.npz").touch()
    with pytest.raises(SemiSupervisedError, match=r"b2nd.*npz|npz.*b2nd"):
        unlabeled_identifiers(str(tmp_path))


def test_identifiers_of_folders_without_cases(tmp_path):
    assert unlabeled_identifiers(str(tmp_path / "absent")) == []
    (tmp_path / "a.pkl").touch()
    (tmp_path / "a_seg.b2nd").touch()
    assert unlabeled_identifiers(str(tmp_path)) == []
