from __future__ import annotations

import json
import os
import pickle
import shutil
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2, nnUNetDatasetNumpy

from nnunet_ssl.data import class_counts
from nnunet_ssl.data.class_counts import COUNTS_FILE, count_labels

pytestmark = pytest.mark.filterwarnings("ignore:Warning. Received empty chunks")  # of nnU-Net, for tiny files
LABELS = {"a": [0, 0, 1, 2, 2, 2], "b": [0, 1, 1, 1, -1, 3], "withheld": [2] * 6}
OF_A_AND_B = {0: 4, 1: 4, 2: 3, 3: 1}  # -1, outside the image, is background


def save(folder: Path, case: str, labels: list[int], dataset_class: type = nnUNetDatasetBlosc2) -> None:
    segmentation = np.array(labels, np.int16).reshape(1, 1, 2, 3)
    if dataset_class is nnUNetDatasetBlosc2:
        dataset_class.save_case(np.zeros((1, 1, 2, 3), np.float32), segmentation, {}, str(folder / case))
    else:
        np.savez(folder / case, data=np.zeros((1, 1, 2, 3), np.float32), seg=segmentation)
        (folder / f"{case}.pkl").write_bytes(pickle.dumps({}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "Dataset001_A" / "nnUNetPlans_2d"
    path.mkdir(parents=True)
    for case, labels in LABELS.items():
        save(path, case, labels)
    return path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Cases in the order in which they were opened."""
    cases: list[str] = []
    original = class_counts._count

    def count(folder: str, case: str) -> dict[str, int]:
        cases.append(case)
        return original(folder, case)

    monkeypatch.setattr(class_counts, "_count", count)
    return cases


def test_voxels_of_each_label_of_the_named_cases(folder):
    assert count_labels(str(folder), ["a"]) == {0: 2, 1: 1, 2: 3}
    assert count_labels(str(folder), ["a", "b"]) == OF_A_AND_B
    assert count_labels(str(folder) + os.sep, ["b"]) == {0: 2, 1: 3, 3: 1}
    assert count_labels(str(folder), []) == {}


def test_the_numpy_format_too(tmp_path):
    folder = tmp_path / "Dataset001_A" / "nnUNetPlans_2d"
    folder.mkdir(parents=True)
    for case in ("a", "b"):
        save(folder, case, LABELS[case], nnUNetDatasetNumpy)
    assert count_labels(str(folder), ["a", "b"]) == OF_A_AND_B


def test_a_case_is_counted_once(folder, opened):
    count_labels(str(folder), ["a"])
    assert count_labels(str(folder), ["a", "b"]) == count_labels(str(folder), ["b", "a"]) == OF_A_AND_B
    assert opened == ["a", "b"]


def test_a_case_is_counted_again_when_its_file_has_changed(folder, opened):
    count_labels(str(folder), ["a", "b"])
    for file in folder.glob("a*"):
        file.unlink()
    save(folder, "a", [5] * 6)
    assert count_labels(str(folder), ["a", "b"]) == {0: 2, 1: 3, 3: 1, 5: 6}
    assert opened == ["a", "b", "a"]


def test_configurations_are_kept_apart(folder, opened):
    other = folder.with_name("nnUNetPlans_3d_fullres")
    shutil.copytree(folder, other)
    for path in (folder, other, folder):
        assert count_labels(str(path), ["a"])[2] == 3
    assert opened == ["a", "a"]
    assert set(json.loads((folder.parent / COUNTS_FILE).read_text())) == {folder.name, other.name}


def test_other_cases_are_never_opened(folder):
    for file in folder.glob("withheld*"):
        file.write_bytes(b"garbage")
    assert count_labels(str(folder), ["a", "b"]) == OF_A_AND_B


@pytest.mark.parametrize("content", ["", "{", "[]", '{"nnUNetPlans_2d": {"a": {}}}'])
def test_a_damaged_file_is_written_anew(folder, content):
    (folder.parent / COUNTS_FILE).write_text(content)
    assert count_labels(str(folder), ["a", "b"]) == OF_A_AND_B
    assert set(json.loads((folder.parent / COUNTS_FILE).read_text())["nnUNetPlans_2d"]) == {"a", "b"}


def test_where_the_file_cannot_be_written_every_training_counts(folder, opened):
    (folder.parent / f"{COUNTS_FILE}.lock").mkdir()  # as root no permission is missing
    for _ in range(2):
        assert count_labels(str(folder), ["a", "b"]) == OF_A_AND_B
    assert opened == ["a", "b"] * 2
    assert not (folder.parent / COUNTS_FILE).exists()


def test_a_lock_that_stays_does_not_stop_the_training(folder, monkeypatch):
    monkeypatch.setattr(class_counts, "PATIENCE", 0.1)
    with FileLock(str(folder.parent / f"{COUNTS_FILE}.lock")):
        assert count_labels(str(folder), ["a", "b"]) == OF_A_AND_B
    assert not (folder.parent / COUNTS_FILE).exists()


def test_several_trainings_at_once(folder):
    with ThreadPool(3) as pool:  # the lock holds between threads as between processes
        found = pool.starmap(count_labels, [(str(folder), ["a"]), (str(folder), ["b"]), (str(folder), ["a", "b"])])
    assert found == [{0: 2, 1: 1, 2: 3}, {0: 2, 1: 3, 3: 1}, OF_A_AND_B]
    assert set(json.loads((folder.parent / COUNTS_FILE).read_text())["nnUNetPlans_2d"]) == {"a", "b"}
