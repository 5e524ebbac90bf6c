"""What `nnunet_ssl doctor` and `nnunet_ssl path` find in an installation and an environment: each remedy helps."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable

import pytest

from nnunet_ssl.discovery import VARIABLE, external_directory
from nnunet_ssl.doctor import installation, lookup, memory, preflight
from nnunet_ssl.doctor.environment import environment_findings
from nnunet_ssl.doctor.examine import examine_dataset
from nnunet_ssl.doctor.report import Finding
from nnunet_ssl.planning.fit import GIB
from nnunet_ssl.planning.rehearsal import rehearse
from nnunet_ssl.trainers import CONTROL, TRAINERS, find_trainer
from tests.remedies.obey import raw
from tests.remedies.rows import OBEY, Here, Row, check, of_doctor, shown
from tests.running import CASES

FOUND = {name: {"module": module, "same": True} for name, module in TRAINERS.items()}
FIRST = next(iter(TRAINERS))


def of(findings: Callable[[], list[Finding]], item: str) -> Callable[[Here], str]:
    return lambda here: shown(item, findings())


def entries(*names: str) -> Callable[[Here], None]:
    """nnUNet_extTrainer with these folders of the test, then ours."""
    return lambda here: here.patch.setenv(
        VARIABLE, os.pathsep.join([*(str(here.folder / name) for name in names), external_directory()])
    )


def package(here: Here) -> None:
    here.file("entry/__init__.py", b"")
    entries("entry")(here)


def answers(here: Here, change: dict | str) -> None:
    """What nnU-Net's look-up would answer in this environment is not asked here, see tests/commands/test_doctor.py."""
    here.file("answers.json", change if isinstance(change, str) else FOUND | change)


def of_answers(item: str) -> Callable[[Here], str]:
    return lambda here: shown(item, lookup.trainer_findings(json.loads((here.folder / "answers.json").read_text())))


def read_only(part: str) -> Callable[[Here], None]:
    """Also for root, whom no permission stops."""

    def fault(here: Here) -> None:
        path, access = str(here.base if part == "" else here.base.parents[1] / part), os.access
        here.patch.setattr("os.access", lambda file, mode: str(file) != path and access(file, mode))

    return fault


def writable(here: Here) -> None:
    here.patch.setattr("os.access", lambda file, mode: True)


def requires(*distributions: str) -> Callable[[Here], None]:
    return lambda here: here.patch.setattr(preflight.metadata, "requires", lambda name: [*distributions])


def not_installed(here: Here) -> None:
    def fail(name: str) -> list[str]:
        raise preflight.metadata.PackageNotFoundError(name)

    here.patch.setattr(preflight.metadata, "requires", fail)


def more_than_labelled(here: Here) -> None:
    """One label more since the others were preprocessed."""
    for part in ("imagesTr", "labelsTr"):
        for file in raw(here.base, part).glob(f"{CASES[0]}*"):
            shutil.copy(file, file.with_name(file.name.replace(CASES[0], "later")))
    number(here, 7)


def number(here: Here, of_cases: int) -> None:
    for path in (here.base / "dataset.json", raw(here.base, "dataset.json")):
        if path.exists():
            path.write_text(json.dumps({**json.loads(path.read_text()), "numTraining": of_cases}))


def small_gpu(here: Here) -> None:
    """Its memory is nine tenths of what a step of the control takes."""
    plans, dataset_json = (json.loads((here.base / f"{n}.json").read_text()) for n in ("nnUNetPlans", "dataset"))
    need = rehearse(find_trainer(CONTROL), plans, "2d", dataset_json).peak / GIB
    here.patch.setattr(memory, "BESIDE", 0.0)
    here.patch.setattr(memory, "gib_of_gpu", lambda: 0.9 * need)


def block(here: Here, **content: object) -> None:
    plans = json.loads((here.base / "nnUNetPlans.json").read_text())
    (here.base / "q.json").write_text(json.dumps(plans | {"plans_name": "q", "nnunet_ssl": content}))


def damaged_copy(here: Here) -> None:
    block(here)
    plans = json.loads((here.base / "q.json").read_text())
    plans["configurations"]["x"] = {"inherits_from": "y"}
    (here.base / "q.json").write_text(json.dumps(plans))


ROWS = {
    "a GPU that is too small for the plans": Row(
        "doctor.memory:_finding 1",
        of_doctor("2d memory", "2d"),
        "nnunet_ssl plans -d 901 -p nnUNetPlans -c 2d --name smaller --fit",
        OBEY,
        small_gpu,
        then=lambda here: shown("2d memory", [f for s in examine_dataset(901, "smaller", ["2d"]) for f in s.findings]),
    ),
    # ---- the environment
    "a folder is not set": Row(
        "doctor.environment:_folder 1",
        of(environment_findings, "nnUNet_raw"),
        "export nnUNet_raw=/path/to/nnUNet_raw",
        lambda here: here.patch.setenv("nnUNet_raw", str(here.folder)),
        lambda here: here.patch.delenv("nnUNet_raw"),
    ),
    "a folder is not there": Row(
        "doctor.environment:_folder 2",
        of(environment_findings, "nnUNet_raw"),
        "or correct nnUNet_raw",
        lambda here: here.patch.setenv("nnUNet_raw", str(here.folder)),
        lambda here: here.patch.setenv("nnUNet_raw", "/no/where"),
    ),
    "results cannot be written": Row(
        "doctor.environment:_folder 3",
        of(environment_findings, "nnUNet_results"),
        "or set nnUNet_results to another folder",
        lambda here: here.patch.setenv("nnUNet_results", str(here.folder)),
        read_only("nnUNet_results"),
    ),
    "no folder of trainers": Row(
        "doctor.environment:_external 1",
        of(environment_findings, VARIABLE),
        f"export {VARIABLE}=$(nnunet_ssl path)",
        OBEY,
        lambda here: here.patch.delenv(VARIABLE, raising=False),
    ),
    "other trainers only": Row(
        "doctor.environment:_external 2",
        of(environment_findings, VARIABLE),
        f"export {VARIABLE}=$(nnunet_ssl path)",
        OBEY,
        lambda here: here.patch.setenv(VARIABLE, str(here.folder)),
    ),
    "entries that are not there": Row(
        "doctor.external_entries:entry_findings 1",
        of(environment_findings, VARIABLE),
        f"correct {VARIABLE} if they matter",
        entries(),
        entries("no"),
    ),
    "entries that break look-ups": Row(
        "doctor.external_entries:entry_findings 2",
        of(environment_findings, VARIABLE),
        f"take it out of {VARIABLE}",
        entries(),
        package,
    ),
    "no number of processes": Row(
        "doctor.preflight:number_findings 1",
        of(preflight.number_findings, "preprocessing processes"),
        "export nnUNet_def_n_proc=8",
        lambda here: here.patch.setenv("nnUNet_def_n_proc", "8"),
        lambda here: here.patch.setenv("nnUNet_def_n_proc", "many"),
    ),
    # ---- the installation; its remedy is pip's work, so that what pip would change is changed by hand
    "nnU-Net cannot be imported": Row(
        "doctor.preflight:preflight_findings 1",
        of(preflight.preflight_findings, "nnU-Net"),
        "repair the installation",
        lambda here: here.patch.setattr(preflight, "NEEDED", {"nnunetv2": "nnU-Net"}),
        lambda here: here.patch.setattr(preflight, "NEEDED", {"nnunetv2.no_such_module": "nnU-Net"}),
    ),
    "not installed": Row(
        "doctor.preflight:requirement_finding 1",
        of(lambda: [preflight.requirement_finding()], "requirements"),
        "pip install",
        requires("numpy"),
        not_installed,
    ),
    "another version is needed": Row(
        "doctor.preflight:requirement_finding 3",
        of(lambda: [preflight.requirement_finding()], "requirements"),
        "pip install",
        requires("numpy"),
        requires("numpy>=99"),
    ),
    "no CUDA": Row(
        "doctor.installation:_device 1",
        of(lambda: [installation._device("cpu")], "device"),
        "nnUNetv2_train ... -device cpu",
        lambda here: None,
        then=lambda here: "",
    ),
    # ---- the look-up
    "the search ends early": Row(
        "doctor.lookup:trainer_findings 1",
        of_answers("look-up"),
        f"look at the directories in {VARIABLE}",
        lambda here: answers(here, {}),
        lambda here: answers(here, "exit code 7"),
    ),
    "a trainer is not found": Row(
        "doctor.lookup:_finding 1",
        of_answers(FIRST),
        f"export {VARIABLE}=$(nnunet_ssl path)",
        lambda here: answers(here, {}),
        lambda here: answers(here, {FIRST: {"error": "Could not find requested nnunet trainer"}}),
    ),
    "another class is found": Row(
        "doctor.lookup:_finding 2",
        of_answers(FIRST),
        "it must not point to the package itself",
        lambda here: answers(here, {}),
        lambda here: answers(here, {FIRST: {"module": "trainers.supervised", "same": False}}),
    ),
    # ---- a dataset
    "the folder cannot be written to": Row(
        "doctor.examine:_writable 1", of_doctor("folder"), "get write permission there", writable, read_only("")
    ),
    "a case was annotated": Row(
        "doctor.dataset:_labeled 3",
        of_doctor("3d_fullres labelled", "3d_fullres"),
        "nnUNetv2_preprocess -d 901 -c 3d_fullres",
        OBEY,
        more_than_labelled,
    ),
    "a wrong number of cases": Row(
        "doctor.dataset:_labeled 4",
        of_doctor("3d_fullres labelled", "3d_fullres"),
        "correct numTraining",
        lambda here: number(here, 6),
        lambda here: number(here, 9),
    ),
    "another image": Row(
        "doctor.dataset:_unlabeled 6",
        of_doctor("3d_fullres unlabelled", "3d_fullres"),
        "nnunet_ssl preprocess -d 901 -c 3d_fullres",
        OBEY,
        lambda here: shutil.copy(
            raw(here.base, "imagesUn") / "extra_001_0000.nii.gz", raw(here.base, "imagesUn") / "extra_000_0000.nii.gz"
        ),
    ),
    "no settings": Row(
        "doctor.settings_files:plans_findings 2",
        of_doctor("settings"),
        "nnunet_ssl plans -d 901 --help",
        lambda here: here.said_by(("plans", "-d", "901", "--name", "q")),
    ),
    "a damaged copy": Row(
        "doctor.settings_files:plans_findings 1",
        of_doctor("q"),
        "for new plans: nnunet_ssl plans --help",
        lambda here: (here.base / "q.json").unlink() or here.said_by(("plans", "-d", "901", "--name", "q")),
        damaged_copy,
    ),
    "a copy names a split that is not there": Row(
        "doctor.settings_files:_check_block 1",
        of_doctor("q"),
        "nnunet_ssl splits -d 901 --counts 3",
        lambda here: here.said_by(("splits", "-d", "901", "--counts", "3")),
        lambda here: block(here, split="n3"),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_followed_the_complaint_is_gone(make_dataset, tmp_path, monkeypatch, capsys, name):
    folder = tmp_path / "files"
    folder.mkdir()
    monkeypatch.setenv(VARIABLE, external_directory())
    check(ROWS[name], Here(make_dataset(), folder, monkeypatch, capsys))
