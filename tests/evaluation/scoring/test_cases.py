"""Which cases are expected, and what is missing or too much."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_ssl.data.splits import Fold, Split, Splits, write_splits
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.evaluation.scoring.cases import Cases, pair_cases
from nnunet_ssl.evaluation.scoring.dataset import find_dataset
from tests.evaluation.scoring.folders import Folders, dataset_json, volume, write, write_json

NAME = "Dataset901_Tiny"


def pair(folders: Folders, prediction: Path | None = None, cases: list[str] | None = None) -> Cases:
    paths = str(folders.references), str(prediction or folders.predictions)
    return pair_cases(*paths, find_dataset(*paths), cases)


@pytest.fixture
def folders(tmp_path) -> Folders:
    return Folders(tmp_path, cases=("a", "b", "c"))


def test_every_reference_is_expected(folders):
    found = pair(folders)
    assert [*found.files] == ["a", "b", "c"]
    assert found.files["a"] == tuple(str(f / "a.nii.gz") for f in (folders.references, folders.predictions))
    assert found.problems == []


def test_missing_and_surplus_predictions_are_all_named(folders):
    write(folders.predictions / "x.nii.gz", volume())
    for case in ("a", "c"):
        (folders.predictions / f"{case}.nii.gz").unlink()
    write(folders.predictions / "c.nii", volume())
    (folders.predictions / "a.npz").touch()
    assert pair(folders).problems == [
        "a: no prediction a.nii.gz",
        "c: no prediction c.nii.gz, but c.nii",
        "x: unexpected prediction x.nii.gz, there is no reference label",
    ]
    assert [*pair(folders).files] == ["b"]


def test_other_files_are_no_predictions(folders):
    names = ["evaluation.json", "evaluation.csv", "evaluation.md", "summary.json", "plans.json", "a.npz", "a.pkl"]
    for name in [*names, ".hidden.nii.gz", "postprocessing.pkl"]:
        (folders.predictions / name).write_text("{}")
    (folders.predictions / "folder.nii.gz").mkdir()
    assert pair(folders).problems == []


def test_given_cases_make_other_predictions_irrelevant(folders):
    write(folders.predictions / "x.nii.gz", volume())
    found = pair(folders, cases=["c", "a", "c"])
    assert ([*found.files], found.problems) == (["a", "c"], [])
    assert pair(folders, cases=["a", "y"]).problems == ["y: no reference label y.nii.gz", "y: no prediction y.nii.gz"]
    with pytest.raises(SemiSupervisedError, match="empty"):
        pair(folders, cases=[])


def test_empty_folders(folders, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SemiSupervisedError, match="holds no prediction"):
        pair(folders, empty)
    write(empty / "validation" / "a.nii.gz", volume())
    with pytest.raises(SemiSupervisedError, match=f"Did you mean {empty / 'validation'}"):
        pair(folders, empty)
    for file in folders.references.iterdir():
        file.unlink()
    with pytest.raises(SemiSupervisedError, match="no label file that ends in .nii.gz"):
        pair(folders)


def validation(tmp_path: Path, trainer: str, split: str | None, cases: str = "ab", fold: str = "0") -> Path:
    model = tmp_path / NAME / f"{trainer}__nnUNetPlans__3d_fullres"
    plans = {"dataset_name": NAME, "plans_name": "nnUNetPlans", "configurations": {}}
    write_json(model / "plans.json", plans | ({"nnunet_ssl": {"split": split}} if split else {}))
    write_json(model / "dataset.json", dataset_json())
    for case in cases:
        write(model / f"fold_{fold}" / "validation" / f"{case}.nii.gz", volume())
    return model / f"fold_{fold}" / "validation"


def summary(folder: Path, cases: str) -> None:
    entries = [{"prediction_file": f"C:\\results\\{case}.nii.gz", "metrics": {}} for case in cases]
    write_json(folder / "summary.json", {"metric_per_case": entries})


def test_a_fold_is_expected_as_nnunet_summarised_it(folders, tmp_path):
    folder = validation(tmp_path, "nnUNetTrainer", None)
    summary(folder, "ab")
    found = pair(folders, folder)
    assert ([*found.files], found.problems, found.chosen) == (["a", "b"], [], "those of nnU-Net's summary.json")
    (folder / "b.nii.gz").rename(folder / "c.nii.gz")
    assert pair(folders, folder).problems == [
        "b: no prediction b.nii.gz",
        "c: unexpected prediction c.nii.gz, it is not one of the expected cases",
    ]
    assert [*pair(folders, folder, cases=["a"]).files] == ["a"]


def test_the_predictions_of_several_folds_together(folders, tmp_path):
    folder = validation(tmp_path, "nnUNetTrainer", None).rename(tmp_path / "crossval_results_folds_0_1")
    write_json(folder / "dataset.json", dataset_json())
    summary(folder, "ab")
    assert [*pair(folders, folder).files] == ["a", "b"]


@pytest.mark.parametrize("content", ["{", "[]", '{"metric_per_case": [{}]}', '{"metric_per_case": []}'])
def test_a_damaged_or_empty_summary(folders, tmp_path, content):
    folder = validation(tmp_path, "nnUNetTrainer", None)
    (folder / "summary.json").write_text(content)
    with pytest.raises(SemiSupervisedError, match="--cases"):
        pair(folders, folder)


@pytest.mark.parametrize(
    ("trainer", "split", "expected"),
    [
        ("nnUNetTrainerSupervised", "n1", "ab"),
        ("nnUNetTrainerMeanTeacher_5epochs", "n1", "ab"),
        ("nnUNetTrainerMeanTeacher", None, "bc"),
        ("nnUNetTrainer", "n1", "bc"),  # a stock trainer does not read the block
    ],
)
def test_without_a_summary_the_split_in_use_decides(folders, tmp_path, monkeypatch, trainer, split, expected):
    base = tmp_path / "preprocessed" / NAME
    write_json(base / "splits_final.json", [{"train": ["a"], "val": ["c", "b"]}])
    write_splits(str(base), Splits(NAME, {}, {"n1": Split(0.5, 0, [Fold(["c"], [], ["b", "a"])])}))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    found = pair(folders, validation(tmp_path, trainer, split, cases=expected[0]))
    assert found.problems == [f"{expected[1]}: no prediction {expected[1]}.nii.gz"]
    assert [*found.files] == [expected[0]]


def test_a_fold_whose_cases_nobody_knows_is_refused(folders, tmp_path, monkeypatch):
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    folder = validation(tmp_path, "nnUNetTrainer", None)
    with pytest.raises(SemiSupervisedError, match="has not finished.*") as caught:
        pair(folders, folder)
    assert "--val" in str(caught.value)
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    write_json(tmp_path / NAME / "splits_final.json", [])
    with pytest.raises(SemiSupervisedError, match="has not finished"):
        pair(folders, folder)


def test_fold_all_validates_on_everything(folders, tmp_path):
    folder = validation(tmp_path, "nnUNetTrainer", None, fold="all")
    assert pair(folders, folder).problems == ["c: no prediction c.nii.gz"]
