"""`nnunet_ssl doctor -d`: each thing that can be wrong with a dataset, its splits and its plans."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from nnunet_ssl.cli import main
from nnunet_ssl.data.split_making import create_splits
from nnunet_ssl.data.splits import load_fold
from nnunet_ssl.doctor.examine import examine_dataset
from nnunet_ssl.doctor.report import NOTE, OK, WRONG, Finding, Section, is_wrong
from tests.running import CASES, hide


def by_item(sections: list[Section]) -> dict[str, Finding]:
    findings = [finding for section in sections for finding in section.findings]
    assert len({f.item for f in findings}) == len(findings)
    return {finding.item: finding for finding in findings}


def wrong(sections: list[Section]) -> dict[str, Finding]:
    return {item: f for item, f in by_item(sections).items() if f.mark == WRONG}


def edit_plans(base: Path, change) -> None:
    path = base / "nnUNetPlans_n2.json"
    plans = json.loads(path.read_text())
    change(plans["nnunet_ssl"])
    path.write_text(json.dumps(plans))


# ---- dataset


def test_unknown_dataset_and_plans(make_dataset):
    base = make_dataset(preprocess=False)
    assert wrong(examine_dataset(902))["dataset"].text.startswith("There is no dataset 902.")
    finding = wrong(examine_dataset(901, "nope"))["nope"]
    assert finding.text.endswith("Plans of this dataset: nnUNetPlans.")
    (base / "dataset.json").write_text("{}")
    assert wrong(examine_dataset(901))["nnUNetPlans"].text.endswith(
        "dataset.json lacks file_ending and labels and channel_names."
    )


def test_plans_that_nnunet_cannot_use(split_dataset):
    path = split_dataset / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in plans.items() if key != "image_reader_writer"}))
    finding = wrong(examine_dataset(901))["nnUNetPlans"]
    assert finding.text == f"{path} lacks image_reader_writer."
    for file in ("nnUNetPlans", "nnUNetPlans_n2"):
        plans = json.loads((split_dataset / f"{file}.json").read_text())
        plans["configurations"]["3d_cascade_fullres"]["inherits_from"] = "nope"
        (split_dataset / f"{file}.json").write_text(json.dumps(plans))
    found = wrong(examine_dataset(901))
    assert [*found] == ["nnUNetPlans", "nnUNetPlans_n2"]
    for finding in found.values():
        assert 'configuration 3d_cascade_fullres inherits from "nope", which is not there' in finding.text
        assert finding.remedy
    assert main(["doctor", "-d", "901"]) == 1


def test_a_folder_that_cannot_be_written_to(split_dataset, monkeypatch):
    assert by_item(examine_dataset(901))["folder"].mark == OK
    access = os.access
    monkeypatch.setattr("os.access", lambda path, mode: str(path) != str(split_dataset) and access(path, mode))
    finding = wrong(examine_dataset(901))["folder"]
    assert finding.text == f"{split_dataset} cannot be written to; preprocessing, splits and plans will fail"
    (split_dataset / "splits_final.json").write_text(json.dumps([{"train": ["tiny_000"], "val": ["tiny_001"]}]))
    assert by_item(examine_dataset(901))["folder"].mark == NOTE  # nothing is left to write


def test_images_that_are_not_preprocessed(make_dataset):
    make_dataset(preprocess=False)
    found = wrong(examine_dataset(901))
    assert [*found] == ["2d unlabelled", "3d_fullres unlabelled"]
    assert found["2d unlabelled"].text == "0 of 3 images preprocessed; missing: extra_000, extra_001, extra_002"
    assert found["2d unlabelled"].remedy == "nnunet_ssl preprocess -d 901 -c 2d -p nnUNetPlans"
    assert main(["preprocess", *found["2d unlabelled"].remedy.split()[2:]]) == 0
    assert [*wrong(examine_dataset(901))] == ["3d_fullres unlabelled"]
    assert not is_wrong(examine_dataset(901, configurations=["2d"]))


def test_configurations_by_name(make_dataset):
    make_dataset()
    found = wrong(examine_dataset(901, configurations=["2d", "3d_lowres", "3d_cascade_fullres"]))
    assert [*found] == ["3d_cascade_fullres", "3d_lowres labelled"]
    assert found["3d_lowres labelled"].remedy == "nnUNetv2_preprocess -d 901 -c 3d_lowres -plans_name nnUNetPlans"
    assert found["3d_cascade_fullres"].remedy == "choose from: 2d, 3d_fullres, 3d_lowres"


def test_labelled_cases_that_are_not_preprocessed(make_dataset):
    base = make_dataset()
    (base / "nnUNetPlans_2d" / "tiny_000.b2nd").unlink()
    finding = by_item(examine_dataset(901))["2d labelled"]
    assert (finding.mark, finding.text) == (NOTE, "5 cases, but dataset.json says 6")
    for configuration in ("2d", "3d_fullres"):
        shutil.rmtree(base / f"nnUNetPlans_{configuration}")
    assert [*wrong(examine_dataset(901))] == ["2d labelled", "3d_fullres labelled", "3d_lowres labelled"]


def test_one_image_more_and_changed_images(make_dataset):
    base = make_dataset()
    images = Path(os.environ["nnUNet_raw"], base.name, "imagesUn")
    os.utime(images / "extra_001_0000.nii.gz", (0, 0))
    finding = by_item(examine_dataset(901))["2d unlabelled"]
    assert finding.mark == NOTE
    assert finding.text == "3 cases, made from other image files: extra_001"
    shutil.copy(images / "extra_000_0000.nii.gz", images / "new_0000.nii.gz")
    assert by_item(examine_dataset(901))["2d unlabelled"].text == "3 of 4 images preprocessed; missing: new"
    (images / "nochannel.nii.gz").touch()
    assert "nochannel.nii.gz" in wrong(examine_dataset(901))["imagesUn"].text


def test_images_elsewhere_or_none(make_dataset):
    base = make_dataset()
    shutil.rmtree(Path(os.environ["nnUNet_raw"], base.name, "imagesUn"))
    found = by_item(examine_dataset(901))
    assert (found["imagesUn"].mark, found["2d unlabelled"].mark) == (NOTE, OK)
    assert found["2d unlabelled"].text == "3 cases whose images are elsewhere"
    shutil.rmtree(base / "nnUNetPlans_2d__unlabeled")
    finding = by_item(examine_dataset(901))["2d unlabelled"]
    assert finding.mark == NOTE
    assert finding.remedy == "put images into imagesUn, then: nnunet_ssl preprocess -d 901 -c 2d -p nnUNetPlans"


def test_a_labelled_case_among_the_unlabelled_ones(make_dataset):
    base = make_dataset()
    for file in (base / "nnUNetPlans_2d").glob("tiny_000*"):
        shutil.copy(file, base / "nnUNetPlans_2d__unlabeled")
    assert wrong(examine_dataset(901))["2d unlabelled"].text.endswith(": tiny_000")


# ---- splits and settings


def test_a_splits_file_that_was_edited(split_dataset):
    path = split_dataset / "splits_ssl.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    found = wrong(examine_dataset(901))
    assert [*found] == ["splits_ssl.json", "nnUNetPlans_n2"]
    assert "was edited by hand or is damaged" in found["splits_ssl.json"].text
    assert "nnunet_ssl splits -d 901 --fractions 0.1" in found["splits_ssl.json"].remedy
    assert found["nnUNetPlans_n2"].text == 'names split "n2", but splits_ssl.json is missing or damaged'


def test_a_split_that_names_a_case_that_is_gone(split_dataset):
    for configuration in ("2d", "3d_fullres"):
        for file in (split_dataset / f"nnUNetPlans_{configuration}").glob("tiny_003*"):
            file.unlink()
    found = wrong(examine_dataset(901))
    assert [*found] == ["split n2"]
    assert "fold 0: unknown, not among the preprocessed labelled cases: tiny_003" in found["split n2"].text.splitlines()


def test_nnunets_folds(split_dataset):
    path = split_dataset / "splits_final.json"
    path.write_text(json.dumps([{"train": ["tiny_000"], "val": ["tiny_001"]}]))
    assert by_item(examine_dataset(901))["splits_final.json"].text == "1 folds"
    path.write_text(json.dumps([{"train": ["tiny_000"], "val": ["tiny_009"]}]))
    finding = wrong(examine_dataset(901))["splits_final.json"]
    assert "tiny_009" in finding.text


def test_fewer_labelled_cases_than_folds(make_dataset):
    base = make_dataset(labeled=3)
    (finding,) = wrong(examine_dataset(901)).values()
    assert finding.item == "splits_final.json" and "3 labelled cases are too few for nnU-Net's 5 folds" in finding.text
    assert "nnUNetv2_train 901 CONFIGURATION all" in finding.remedy
    command = "nnunet_ssl splits -d 901 --folds 3"
    assert command in finding.remedy
    assert main(command.split()[1:]) == 0
    assert by_item(examine_dataset(901))["splits_final.json"] == Finding(OK, "splits_final.json", "3 folds")
    path = base / "splits_final.json"
    path.write_text(json.dumps([{"train": ["tiny_000"], "val": []}]))
    finding = wrong(examine_dataset(901))["splits_final.json"]
    assert "fold 0: no validation case" in finding.text
    assert finding.remedy.endswith(
        "or delete it before the first training run: nnunet_ssl splits -d 901 --folds makes it again"
    )


def test_a_split_that_is_not_there_is_made_by_the_command_that_is_named(split_dataset):
    path = split_dataset / "splits_ssl.json"
    path.unlink()
    finding = wrong(examine_dataset(901))["nnUNetPlans_n2"]
    command = "nnunet_ssl splits -d 901 --counts 2"
    assert command in finding.remedy
    assert main(command.split()[1:]) == 0
    assert not is_wrong(examine_dataset(901))


def test_a_class_that_no_labelled_case_shows(split_dataset):
    (split_dataset / "splits_final.json").write_text(json.dumps([{"train": CASES[1:], "val": CASES[:1]}]))
    create_splits(901, counts=[2], overwrite=True)
    assert by_item(examine_dataset(901))["classes"].mark == OK
    labeled = load_fold(str(split_dataset), "n2", 0).labeled
    (withheld, *_) = load_fold(str(split_dataset), "n2", 0).unlabeled
    for case in set(CASES) - {withheld}:
        hide(split_dataset, case, 2)
    found = by_item(examine_dataset(901))
    assert found["classes, n2"].mark == NOTE
    assert found["classes, n2"].text == f"fold 0: no labelled case shows box; withheld cases that have it: {withheld}"
    assert "classes, splits_final.json" not in found and len(labeled) == 2
    hide(split_dataset, withheld, 2)
    assert by_item(examine_dataset(901))["classes"].text == "no labelled case of the dataset shows box"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda block: block.update(split="n3"), 'has no split "n3". Available: n2.'),
        (lambda block: block.update(split=3), '"split" must be the name'),
        (lambda block: block.update(epochs=3), 'unknown key "epochs"'),
        (lambda block: block.update(training={"initial_lr": -1}), "must lie between"),
        (lambda block: block.update(hyperparameters={"nnUNetTrainerNope": {}}), 'unknown trainer "nnUNetTrainerNope"'),
        (lambda block: block.update(hyperparameters={"nnUNetTrainerMeanTeacher": {"a": 1}}), 'unknown key "a"'),
        (lambda block: block.update(hyperparameters=[]), "damaged"),
    ],
)
def test_blocks_that_trainers_would_refuse(split_dataset, change, text):
    edit_plans(split_dataset, change)
    found = wrong(examine_dataset(901))
    assert [*found] == ["nnUNetPlans_n2"]
    assert text in found["nnUNetPlans_n2"].text
    assert str(split_dataset / "nnUNetPlans_n2.json") in found["nnUNetPlans_n2"].remedy


def test_without_splits_and_settings_there_are_only_notes(make_dataset):
    make_dataset()
    found = by_item(examine_dataset(901))
    for item in ("splits_final.json", "splits_ssl.json", "settings"):
        assert found[item].mark == NOTE
