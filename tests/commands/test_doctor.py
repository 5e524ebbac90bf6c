"""`nnunet_ssl doctor` as it is typed, and each thing it can find wrong."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from nnunet_ssl.cli import main
from nnunet_ssl.discovery import VARIABLE, external_directory
from nnunet_ssl.doctor import examine, installation, lookup
from nnunet_ssl.doctor.environment import environment_findings
from nnunet_ssl.doctor.examine import examine_dataset
from nnunet_ssl.doctor.report import NOTE, OK, WRONG, Finding, Section, is_wrong, render
from nnunet_ssl.trainers import TRAINERS

ROOT = Path(__file__).resolve().parents[2]


def by_item(sections: list[Section]) -> dict[str, Finding]:
    findings = [finding for section in sections for finding in section.findings]
    assert len({f.item for f in findings}) == len(findings)
    return {finding.item: finding for finding in findings}


def wrong(sections: list[Section]) -> dict[str, Finding]:
    return {item: f for item, f in by_item(sections).items() if f.mark == WRONG}


@pytest.fixture
def split_dataset(make_dataset, capsys) -> Path:
    """Six labelled cases, three images without labels in both configurations, a split and plans that use it."""
    base = make_dataset()
    assert main(["splits", "-d", "901", "--counts", "2"]) == 0
    assert main(["plans", "-d", "901", "--split", "n2", "--training", "num_epochs=3"]) == 0
    capsys.readouterr()
    return base


def edit_plans(base: Path, change) -> None:
    path = base / "nnUNetPlans_n2.json"
    plans = json.loads(path.read_text())
    change(plans["nnunet_ssl"])
    path.write_text(json.dumps(plans))


# ---- the whole command


def test_everything_right(split_dataset, monkeypatch, capsys):
    monkeypatch.setenv(VARIABLE, external_directory())
    assert main(["doctor", "-d", "901"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "Semi-supervised training for nnU-Net: examination"
    assert lines[-1] == "Nothing is wrong."
    for name, module in TRAINERS.items():
        assert f"ok {name} found, {module}" in lines
    assert f"ok nnUNet_raw {os.environ['nnUNet_raw']}" in lines
    for configuration in ("2d", "3d_fullres"):
        assert f"ok {configuration} labelled 6 cases" in lines
        assert f"ok {configuration} unlabelled 3 of 3 images" in lines
    assert "note 3d_lowres labelled not preprocessed" in lines
    assert "-> nnUNetv2_preprocess -d 901 -c 3d_lowres -plans_name nnUNetPlans" in lines
    assert "ok splits_ssl.json 1 splits, hash intact" in lines
    validation = "validation 2 1 1 1 1"
    assert f"ok split n2 per fold: labelled 2 2 2 2 2; withheld 2 3 3 3 3; {validation}" in lines
    assert "ok nnUNetPlans_n2 split n2" in lines
    assert "training: num_epochs = 3" in lines
    assert not any(line.startswith("Searching") for line in lines)  # nnU-Net's own prints


def test_the_exit_code_is_1_if_anything_is_wrong(monkeypatch, capsys):
    for mark, code in ((OK, 0), (NOTE, 0), (WRONG, 1)):
        monkeypatch.setattr(
            examine, "examine_installation", lambda mark=mark: [Section("S", [Finding(mark, "i", "t")])]
        )
        assert main(["doctor"]) == code
        assert f"  {mark:<5} i t" in capsys.readouterr().out.splitlines()


# ---- report


def test_aligned_with_remedies_below_their_problem():
    findings = [Finding(OK, "a", "fine"), Finding(WRONG, "longer", "first\nsecond", "do this\nthen that")]
    assert render([Section("One", findings), Section("Two", [Finding(NOTE, "b", "c")])]).splitlines() == [
        "One",
        "  ok    a      fine",
        "  WRONG longer first",
        "               second",
        "               -> do this",
        "               -> then that",
        "",
        "Two",
        "  note  b      c",
        "",
        "1 WRONG, see -> for what to do.",
    ]
    assert is_wrong([Section("One", findings)])
    assert not is_wrong([Section("One", findings[:1])])


# ---- installation and environment


def test_versions_that_do_not_fit(monkeypatch):
    needed = ["nnunetv2>=99", "numpy", "no-such-package>=1", 'ruff>=99; extra == "dev"']
    monkeypatch.setattr(installation.metadata, "requires", lambda name: needed)
    finding = installation.installation_findings()[-1]
    assert (finding.mark, finding.item) == (WRONG, "requirements")
    first, second = finding.text.splitlines()
    assert first.startswith("nnunetv2 2.") and first.endswith("is installed, but nnunetv2>=99 is needed")
    assert second == "no-such-package>=1 is not installed"
    assert finding.remedy == "pip install --upgrade nnunet-ssl"


@pytest.mark.parametrize(
    ("value", "device", "text"),
    [
        (None, "cuda", "on (not set)"),
        ("T", "cuda", "on (nnUNet_compile=T)"),
        ("f", "cuda", "off (nnUNet_compile=f)"),
        ("1", "mps", "off on this device (nnUNet_compile=1)"),
    ],
)
def test_compilation_follows_nnunets_rule(monkeypatch, value, device, text):
    monkeypatch.delenv("nnUNet_compile", raising=False)
    if value is not None:
        monkeypatch.setenv("nnUNet_compile", value)
    assert installation._compilation(device).text == text


def test_device_mixed_precision_and_workers(monkeypatch):
    monkeypatch.setattr(installation, "best_device", lambda: "cpu")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    device, precision, _, workers = installation.device_findings()
    assert (device.mark, device.remedy) == (NOTE, "nnUNetv2_train ... -device cpu")
    assert precision.text.startswith("off")
    assert workers.text.startswith("0 (nnUNet_n_proc_DA)")
    monkeypatch.setenv("nnUNet_n_proc_DA", "many")
    assert installation.device_findings()[-1].mark == WRONG


def test_variables(tmp_path, monkeypatch):
    here = str(tmp_path)
    fine = dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), here)
    good = {**fine, VARIABLE: os.pathsep.join([here, external_directory()])}
    assert [f.mark for f in environment_findings(good)] == [OK] * 4

    findings = environment_findings({"nnUNet_raw": f"{here}/no", "nnUNet_results": ""})
    assert [f.mark for f in findings] == [WRONG] * 4
    assert [f.remedy.split("=")[0] for f in findings[1:]] == [
        "export nnUNet_preprocessed",
        "export nnUNet_results",
        "export nnUNet_extTrainer",
    ]
    assert findings[0].remedy.startswith(f"mkdir -p '{here}/no'")

    value = os.pathsep.join([f"{here}/no", here])
    *_, ours, absent = environment_findings({**fine, VARIABLE: value})
    assert (ours.mark, ours.remedy) == (NOTE, "export nnUNet_extTrainer=$(nnunet_ssl path)")
    assert (absent.mark, absent.text) == (NOTE, f"nnU-Net skips entries that do not exist: {here}/no")

    monkeypatch.setattr("os.access", lambda *_: False)
    assert [f.mark for f in environment_findings(good)] == [NOTE, NOTE, WRONG, OK]


# ---- look-up: each wrong value of the variable in a process of its own, as nnU-Net meets it


@pytest.mark.parametrize(
    ("value", "text", "remedy"),
    [
        (None, "not found: Could not find requested nnunet trainer", "export nnUNet_extTrainer=$(nnunet_ssl path)"),
        ("copy", "nnU-Net finds another class of this name, from trainers.", "unset nnUNet_extTrainer"),
        ("broken", "not found: ModuleNotFoundError: No module named 'no_such_dependency'", "stops nnU-Net's search"),
        ("kills", "nnU-Net's search for trainers ended early: exit code 7, last words", "look at the directories"),
    ],
)
def test_trainers_that_nnunet_does_not_find(tmp_path, monkeypatch, value, text, remedy):
    modules = {
        "broken": "import no_such_dependency",
        "kills": "import os; print('last words', flush=True); os._exit(7)",
    }
    folder = tmp_path / "directory"
    if value == "copy":  # the layout that breaks pickling: classes of a package that is searched, not imported
        shutil.copytree(ROOT / "nnunet_ssl" / "trainers", folder / "trainers")
    elif value is not None:
        folder.mkdir()
        (folder / "a_module.py").write_text(modules[value])
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, os.pathsep.join([str(folder), external_directory()]))
    findings = lookup.trainer_findings()
    assert len(findings) == (1 if value == "kills" else len(TRAINERS))
    for finding in findings:
        assert finding.mark == WRONG
        assert finding.text.startswith(text)
        assert remedy in finding.remedy


def test_no_package_where_nnunet_runs():
    error = "ModuleNotFoundError: X belongs to the package nnunet_ssl, ... Run: pip install nnunet-ssl"
    assert lookup._finding("X", {"error": error}).remedy == "pip install nnunet-ssl"


# ---- dataset


def test_unknown_dataset_and_plans(make_dataset):
    base = make_dataset(preprocess=False)
    assert wrong(examine_dataset(902))["dataset"].text.startswith("There is no dataset 902.")
    finding = wrong(examine_dataset(901, "nope"))["nope"]
    assert finding.text.endswith("Plans of this dataset: nnUNetPlans.")
    (base / "dataset.json").write_text("{}")
    assert wrong(examine_dataset(901))["nnUNetPlans"].text.endswith("dataset.json lacks file_ending and labels")


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
    assert finding.text == "3 cases, made from other image files or with other settings: extra_001"
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
    assert "nnunet_ssl splits -d Dataset901_Tiny --fractions 0.1" in found["splits_ssl.json"].remedy
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
