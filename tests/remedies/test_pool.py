"""Complaints about the preprocessed data, by trainers, `nnunet_ssl preprocess` and `nnunet_ssl doctor`.

A row of the table: how the fault comes about, what is said, and what a person puts in place of words in capitals. The
commands are those of the message itself. A remedy that is added to the package gets a row here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from nnunet_ssl.cli import main
from nnunet_ssl.data.unlabeled_store import RECORD
from nnunet_ssl.doctor.examine import examine_dataset
from nnunet_ssl.doctor.report import NOTE, WRONG
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.planning.plans_copy import write_plans_copy
from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_ssl.trainers.supervised import nnUNetTrainerSupervised
from tests.planned_again import change_plans, plan_again, preprocess_labeled
from tests.remedies.obey import move_images, obey, raw
from tests.remedies.sites import that_spoke
from tests.running import make_trainer

CT = {"ct": True, "unlabeled": 2, "labeled": 5}
FULLRES, POOL = "nnUNetPlans_3d_fullres", "nnUNetPlans_3d_fullres__unlabeled"


@dataclass(frozen=True)
class Row:
    """One complaint.

    Attributes:
        fault: brings it about, given the preprocessed folder of the dataset.
        says: words of the message.
        who: of ASKED, those who must complain and whose advice must help -> the place that advises, see sites.py.
        plans: name of the plans file.
        dataset: recipe of the tiny dataset.
        words: word in capitals -> what a person writes.
    """

    fault: Callable[[Path], Any]
    says: str
    who: dict[str, str]
    plans: str = "nnUNetPlans"
    dataset: dict[str, Any] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)


# ---- who is asked: the message, empty if there is nothing to complain about


def _trainer(base: Path, plans: str, trainer: type) -> str:
    results = base.parents[1] / "nnUNet_results"
    try:
        made = make_trainer(base, trainer, plans_name=plans)
        made.initialize()
        if trainer is nnUNetTrainerMeanTeacher:
            made.streams.check_cases()
    except SemiSupervisedError as error:
        return str(error)
    finally:
        shutil.rmtree(results / base.name, ignore_errors=True)
    return ""


def _command(*words: str) -> Callable[[Path, str], str]:
    def ask(base: Path, plans: str) -> str:
        from nnunet_ssl.data.unlabeled import preprocess_unlabeled

        try:
            preprocess_unlabeled(901, ["3d_fullres"], plans, num_processes=1)
        except SemiSupervisedError as error:
            return str(error)
        return ""

    return ask


def _doctor(base: Path, plans: str) -> str:
    findings = [f for section in examine_dataset(901, plans, ["3d_fullres"]) for f in section.findings]
    wanted = [f for f in findings if f.mark == WRONG or (f.mark == NOTE and "if it was planned again" in f.text)]
    return "\n".join(f"{f.item}: {f.text}\n{f.remedy}" for f in wanted[:1])


def _benchmark(base: Path, plans: str) -> str:
    from nnunet_ssl.evaluation.benchmark.checks import examine
    from nnunet_ssl.evaluation.benchmark.manifest import Experiment

    experiment = Experiment("901", ("3d_fullres",), ("nnUNetTrainerSupervised",), ("n2",), plans)
    return "\n".join(p for p in examine(experiment).problems if "preprocessing" in p or "labelled" in p)


ASKED: dict[str, Callable[[Path, str], str]] = {
    "trainer": lambda base, plans: _trainer(base, plans, nnUNetTrainerMeanTeacher),
    "control": lambda base, plans: _trainer(base, plans, nnUNetTrainerSupervised),
    "preprocess": _command(),
    "doctor": _doctor,
    "benchmark": _benchmark,
}
COPY = dict.fromkeys(ASKED, "data.outdated:_copy 1")
DATA = dict.fromkeys(ASKED, "data.outdated:_data 1")
OTHERS = {"trainer": "training.streams:Streams.check_cases 1", "doctor": "doctor.dataset:_unlabeled 5"}
BOTH = {"trainer": "data.pool:unlabeled_pool 1", "doctor": "doctor.dataset:_unlabeled 2"}


# ---- faults


def copy_then_plan_again(base: Path) -> None:
    write_plans_copy(901, name="q", training={"num_epochs": 3, "mirror_axes": [0, 1]})
    plan_again(base)


def all_but_the_copy_made_again(base: Path) -> None:
    copy_then_plan_again(base)
    preprocess_labeled(base)
    assert main(["preprocess", "-d", "901", "-c", "3d_fullres", "-np", "1"]) == 0


def from_another_folder(base: Path) -> Path:
    """Cases preprocessed with -i, before the plans changed."""
    images = move_images(base, base.parents[1] / "other images")
    for case in ("extra_000", "extra_001"):
        (base / POOL / f"{case}.pkl").unlink()  # made again from there
    assert main(["preprocess", "-d", "901", "-c", "3d_fullres", "-np", "1", "-i", str(images)]) == 0
    other_settings(base)
    return images


def other_settings(base: Path) -> None:
    change_plans(base, lambda plans: plans["configurations"]["3d_fullres"].update(use_mask_for_norm=[True]))
    preprocess_labeled(base)


def annotated(base: Path) -> None:
    """A case of imagesUn got a label and was preprocessed with it; its image left imagesUn."""
    for file in (base / POOL).glob("extra_000*"):
        shutil.copy(file, base / FULLRES)
    (raw(base, "imagesUn") / "extra_000_0000.nii.gz").unlink()


def touch(*names: str) -> Callable[[Path], None]:
    return lambda base: [(base / name).write_bytes(b"x") for name in names]  # type: ignore[func-returns-value]


def forget_records(base: Path) -> None:
    from batchgenerators.utilities.file_and_folder_operations import load_pickle, write_pickle

    for file in (base / POOL).glob("*.pkl"):
        write_pickle({k: v for k, v in load_pickle(str(file)).items() if k != RECORD}, str(file))


def lost_image(base: Path) -> None:
    (from_another_folder(base) / "extra_000_0000.nii.gz").unlink()


ROWS = {
    "copy older than its source": Row(
        all_but_the_copy_made_again,
        "q is older than nnUNetPlans",
        COPY | {"doctor": "doctor.dataset:data_findings 2"},
        "q",
        CT,
    ),
    "copy and all data older": Row(copy_then_plan_again, "q is older than nnUNetPlans", COPY, "q", CT),
    "labelled and unlabelled data older": Row(
        lambda base: plan_again(base), "The labelled cases were preprocessed with other settings", DATA, dataset=CT
    ),
    "unlabelled data older": Row(
        other_settings, "other settings", OTHERS | {"benchmark": "doctor.dataset:_unlabeled 5"}
    ),
    "unlabelled data older, images in another folder": Row(from_another_folder, "other settings", OTHERS),
    "unlabelled data older, one image gone": Row(lost_image, "other settings", OTHERS),
    "records of unlabelled cases lost": Row(forget_records, "other settings", OTHERS),
    "unlabelled images not preprocessed": Row(
        lambda base: shutil.rmtree(base / POOL),
        "preprocessed",
        {
            "trainer": "data.pool:unlabeled_pool 2",
            **dict.fromkeys(("doctor", "benchmark"), "doctor.dataset:_unlabeled 3"),
        },
    ),
    "a case annotated since": Row(annotated, "extra_000", BOTH),
    "a labelled case among the unlabelled": Row(
        lambda base: (
            shutil.copy(raw(base, "imagesTr") / "tiny_000_0000.nii.gz", raw(base, "imagesUn") / "tiny_000_0000.nii.gz")
            and [shutil.copy(f, base / POOL) for f in (base / FULLRES).glob("tiny_000*")]
        ),
        "tiny_000",
        BOTH,
    ),
    "hidden files among the labelled cases": Row(
        touch(f"{FULLRES}/._tiny_000.b2nd", f"{FULLRES}/.DS_Store"),
        "files that belong to no case",
        dict.fromkeys(("trainer", "control"), "data.foreign_files:refuse_foreign_files 1")
        | dict.fromkeys(("doctor", "benchmark"), "doctor.dataset:_labeled 2"),
    ),
    "two file formats among the unlabelled cases": Row(
        touch(f"{POOL}/extra_000.npz"),
        "more than one file format",
        {"trainer": "data.unlabeled_store:unlabeled_identifiers 1", "doctor": "doctor.dataset:_unlabeled 1"},
    ),
    "labelled cases not preprocessed": Row(
        lambda base: shutil.rmtree(base / FULLRES),
        "not preprocessed",
        dict.fromkeys(("trainer", "control"), "training.configured:nnUNetTrainerConfigured.initialize 1")
        | {"doctor": "doctor.dataset:_labeled 1", "preprocess": "data.recipes:_not_preprocessed 1"},
    ),
    "labelled cases older than the plans file": Row(
        lambda base: os.utime(base / "nnUNetPlans.json"),
        "older than nnUNetPlans.json",
        {"doctor": "doctor.dataset:_labeled 5"},
    ),
}


@pytest.mark.parametrize(("name", "who"), [(name, who) for name, row in ROWS.items() for who in row.who])
def test_obeyed_the_complaint_is_gone(make_dataset, monkeypatch, capsys, name, who):
    row = ROWS[name]
    base = make_dataset(**row.dataset)
    assert row.plans != "nnUNetPlans" or ASKED[who](base, row.plans) == ""
    row.fault(base)
    with that_spoke() as spoke:
        message = ASKED[who](base, row.plans)
    assert row.says in message
    assert row.who[who] in spoke, spoke
    commands = obey(message, monkeypatch, row.words)
    assert row.says not in ASKED[who](base, row.plans), commands
    if left := _trainer(base, row.plans, nnUNetTrainerMeanTeacher):  # another complaint, which has a row of its own
        obey(left, monkeypatch)
    assert _trainer(base, row.plans, nnUNetTrainerMeanTeacher) == ""
