"""Complaints about datasets, folds, splits, plans and files that people write: each remedy, followed, helps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from nnunet_ssl.data import splits as splits_module
from nnunet_ssl.data.folders import write_json
from nnunet_ssl.data.split_folds import TrainVal
from nnunet_ssl.data.split_making import make_split
from nnunet_ssl.data.split_requests import Request
from nnunet_ssl.data.splits import Fold, Split, Splits, write_splits
from nnunet_ssl.data.unlabeled_store import LOCK, SCRATCH, open_for_writing
from tests.remedies.obey import raw
from tests.remedies.rows import OBEY, Here, Row, check, message_of, of_doctor
from tests.running import CASES, hide, write_split
from tests.tiny import DATASET
from tests.trainers.registered import IGNORE

FOLDS = [{"train": [c for c in CASES if c != case], "val": [case]} for case in CASES[:3]]
SPLITS = ("splits", "-d", "901", "--fractions", "0.5")
PLANS = ("plans", "-d", "901", "--name", "q")
FITTED = (*PLANS, "-c", "2d")
PREPROCESS = ("preprocess", "-d", "901", "-c", "3d_fullres", "-np", "1")
LISTED = ("splits", "-d", "901", "--labeled-from", "{folder}/list.json", "--names", "own")
GROUPED = (*SPLITS, "--groups", "{folder}/groups.json")
SUBJECTS = {case: f"subject_{index // 2}" for index, case in enumerate(CASES)}
MANIFEST = {
    "device": "cpu",
    "datasets": [
        {"dataset": 901, "configurations": ["3d_fullres"], "trainers": ["nnUNetTrainerSupervised"], "splits": ["n2"]}
    ],
}
UNLABELED = "nnUNetPlans_3d_fullres__unlabeled"


def folds(content: object) -> Callable[[Here], object]:
    """Write splits_final.json; bytes as they are."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return lambda here: (here.base / "splits_final.json").write_bytes(text)


def splits_file(change: Callable[[dict], object]) -> Callable[[Here], None]:
    """Write splits_ssl.json, changed by hand."""

    def fault(here: Here) -> None:
        write_split(here.base, name="l10")
        path = here.base / "splits_ssl.json"
        content = json.loads(path.read_text())
        change(content)
        if content["sha256"]:
            content["sha256"] = splits_module.content_hash(content)
        path.write_text(json.dumps(content))

    return fault


def other_plans(here: Here) -> None:
    path = here.base / "nnUNetPlans.json"
    shutil.copy(path, here.folder / "kept.json")
    plans = json.loads(path.read_text())
    plans["configurations"]["x"] = {"inherits_from": "y"}
    path.write_text(json.dumps(plans))


def incomplete_plans(here: Here) -> None:
    path = here.base / "nnUNetPlans.json"
    shutil.copy(path, here.folder / "kept.json")
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "image_reader_writer"}))


def foreign_plans(here: Here) -> None:
    path = here.base / "nnUNetPlans.json"
    shutil.copy(path, here.folder / "kept.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "image_reader_writer": "SomebodysIO"}))


def list_for_dataset_json(here: Here) -> None:
    shutil.copy(here.base / "dataset.json", here.folder / "kept.json")
    (here.base / "dataset.json").write_text("[]")


def no_dataset_json(here: Here) -> None:
    shutil.copy(here.base / "dataset.json", here.folder / "kept.json")
    for path in (here.base, raw(here.base)):
        (path / "dataset.json").unlink(missing_ok=True)


def disagreement(here: Here) -> None:
    path = here.base / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    plans["configurations"]["other"] = {**plans["configurations"]["3d_fullres"], "use_mask_for_norm": [True]}
    path.write_text(json.dumps(plans))


def plans_back(here: Here) -> None:
    shutil.copy(here.folder / "kept.json", here.base / "nnUNetPlans.json")


def one_case_less(here: Here) -> None:
    for file in (here.base / "nnUNetPlans_2d").glob("tiny_000*"):
        file.unlink()


def no_2d(here: Here) -> None:
    shutil.rmtree(here.base / "nnUNetPlans_2d")


def unset(name: str) -> Callable[[Here], None]:
    return lambda here: here.patch.delenv(name)


def set_again(name: str) -> Callable[[Here], None]:
    return lambda here: here.patch.setenv(name, str(here.base.parents[1] / name))


def no_images(here: Here) -> None:
    images = raw(here.base, "imagesUn")
    shutil.move(images, here.folder / "images")


def images_put_there(here: Here) -> None:
    shutil.copytree(here.folder / "images", raw(here.base, "imagesUn"), dirs_exist_ok=True)


def empty_folder(here: Here) -> None:
    no_images(here)
    raw(here.base, "imagesUn").mkdir()


def nothing_unlabeled(here: Here) -> None:
    no_images(here)
    shutil.rmtree(here.base / UNLABELED, ignore_errors=True)


def damaged_image(here: Here) -> None:
    (raw(here.base, "imagesUn") / "extra_000_0000.nii.gz").write_bytes(b"no image")


def remove_image(here: Here) -> None:
    (raw(here.base, "imagesUn") / "extra_000_0000.nii.gz").unlink()


def rename(old: str, new: str) -> Callable[[Here], object]:
    return lambda here: (raw(here.base, "imagesUn") / old).rename(raw(here.base, "imagesUn") / new)


def unknown_case(here: Here) -> None:
    fold = Fold(["gone", *CASES[:2]], CASES[2:5], CASES[5:])
    write_splits(str(here.base), Splits(DATASET, {}, {"n2": Split(0.4, 0, [fold])}))


def write_to_store(here: Here) -> None:
    with open_for_writing(str(here.folder / "store")):
        pass


def nobody(here: Here) -> None:
    """Nothing is left to do: the remedy lies in what is asked next."""


def hold(path: Callable[[Here], Path]) -> tuple[Callable[[Here], object], Callable[[Here], object]]:
    """(take a lock, give it back)."""
    held: list[FileLock] = []

    def take(here: Here) -> None:
        here.patch.setattr(splits_module, "PATIENCE", 0.1)
        path(here).parent.mkdir(parents=True, exist_ok=True)
        held.append(FileLock(path(here)))
        held[-1].acquire()

    return take, lambda here: held.pop().release()


def dataset_json(here: Here, change: Callable[[dict], object]) -> None:
    path = here.base / "dataset.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


store_in_use, store_free = hold(lambda here: here.folder / "store" / SCRATCH / LOCK)
in_use, free = hold(lambda here: here.base / splits_module.LOCK_FILE)
ROWS = {
    # ---- datasets and plans
    "nnUNet_preprocessed is not set": Row(
        "data.folders:preprocessed_base 1",
        PLANS,
        "export nnUNet_preprocessed=FOLDER",
        set_again("nnUNet_preprocessed"),
        unset("nnUNet_preprocessed"),
    ),
    "not planned": Row(
        "data.folders:preprocessed_base 2",
        PLANS,
        "Run: nnUNetv2_plan_and_preprocess -d 901",
        OBEY,
        lambda here: shutil.rmtree(here.base),
    ),
    "no such dataset": Row(
        "data.folders:_no_dataset 1",
        ("plans", "-d", "Dataset077_No", "--name", "q"),
        f"Datasets there: {DATASET}",
        PLANS,
    ),
    "no dataset of that number": Row(
        "data.folders:_no_dataset 1",
        ("plans", "-d", "77", "--name", "q"),
        f"Datasets there: {DATASET}",
        PLANS,
    ),
    "no such plans": Row(
        "data.folders:load_plans 1", (*PLANS, "-p", "other"), "Name one of these with -p", (*PLANS, "-p", "nnUNetPlans")
    ),
    "plans nnU-Net cannot use": Row("data.folders:load_plans 2", PLANS, "Correct it there", plans_back, other_plans),
    "plans without the reader": Row(
        "data.recipes:check_complete 1", PREPROCESS, "Restore the plans file", plans_back, incomplete_plans
    ),
    "one folder, two ways to preprocess": Row(
        "data.recipes:_check_agreement 1", PREPROCESS[:3], "name one configuration with -c", PREPROCESS, disagreement
    ),
    "configurations with different cases": Row(
        "data.folders:labeled_cases 2", SPLITS, "or delete those folders", no_2d, one_case_less
    ),
    "no number": Row(
        "data.folders:write_json 1",
        message_of(
            lambda here: write_json(str(here.folder / "a.json"), json.loads((here.folder / "b.json").read_text()))
        ),
        "Correct these values",
        lambda here: here.file("b.json", {"rate": 0.1}),
        lambda here: here.file("b.json", b'{"rate": NaN}'),
    ),
    "no name for the copy": Row("planning.plans_copy:write_plans_copy 1", PLANS[:3], "Give --split or --name", PLANS),
    "the name of another file": Row(
        "planning.plans_copy:write_plans_copy 2", (*PLANS[:3], "--name", "dataset"), "Choose another --name", PLANS
    ),
    "the name of nnU-Net's plans": Row(
        "planning.plans_copy:_check_taken 1", (*PLANS[:3], "--name", "nnUNetPlans"), "Choose another --name", PLANS
    ),
    "the name of other settings": Row(
        "planning.plans_copy:_check_taken 2",
        (*PLANS, "--training", "num_epochs=5"),
        "replace it with --overwrite",
        (*PLANS, "--training", "num_epochs=5", "--overwrite"),
        lambda here: here.said_by(PLANS),
    ),
    "a configuration of an ordinary copy": Row(
        "commands.plans:_network 1", (*PLANS, "-c", "3d_fullres"), "or leave out -c", PLANS
    ),
    "a small network of no configuration": Row(
        "commands.plans:_network 2",
        (*PLANS, "--features", "4", "8"),
        "Give -c",
        (*PLANS, "--features", "4", "8", "-c", "2d"),
    ),
    "trainers of a memory that was not given": Row(
        "commands.plans:_fit 1", (*PLANS, "-tr", "nnUNetTrainerSupervised"), "leave out -tr", PLANS
    ),
    "no memory at all": Row(
        "commands.plans:_fit 2", (*FITTED, "--fit", "0"), "Give the memory of the GPU", (*FITTED, "--fit", "8")
    ),
    "too little memory": Row(
        "planning.fit:_shrunk 1", (*FITTED, "--fit", "1e-5"), "Give it --fit 0.1", (*FITTED, "--fit", "0.1")
    ),
    "the memory of a method that does not support the plans": Row(
        "planning.fit:fitted 1",
        (*FITTED, "--fit", "8", "-tr", "nnUNetTrainerDTC"),
        "other trainers with -tr",
        (*FITTED, "--fit", "8", "-tr", "nnUNetTrainerMCNet"),
        dataset=(("labels", IGNORE),),
    ),
    # ---- images without labels
    "nnUNet_raw is not set": Row(
        "data.unlabeled:_image_folder 1",
        PREPROCESS,
        "name the folder of the images with -i",
        (*PREPROCESS, "-i", "{folder}/images"),
        lambda here: (
            (images := raw(here.base, "imagesUn"))
            and shutil.copytree(images, here.folder / "images")
            and unset("nnUNet_raw")(here)
        ),
    ),
    "no imagesUn": Row(
        "data.image_folder:list_images 1",
        PREPROCESS,
        "Put the images without labels there",
        images_put_there,
        no_images,
    ),
    "imagesUn is empty": Row(
        "data.image_folder:list_images 2",
        PREPROCESS,
        "Put the images without labels there",
        images_put_there,
        empty_folder,
    ),
    "a damaged image": Row(
        "data.image_checks:check_images 1", PREPROCESS, "Correct or remove these files", remove_image, damaged_image
    ),
    "doctor: names of images": Row(
        "doctor.dataset:_images 1",
        of_doctor("imagesUn"),
        "correct the names",
        rename("extra_000.nii.gz", "extra_000_0000.nii.gz"),
        rename("extra_000_0000.nii.gz", "extra_000.nii.gz"),
    ),
    "doctor: nothing unlabelled": Row(
        "doctor.dataset:_unlabeled 4",
        of_doctor("3d_fullres unlabelled"),
        "put images into imagesUn, then:",
        lambda here: (images_put_there(here), here.said_by(PREPROCESS)),
        nothing_unlabeled,
    ),
    "another preprocess": Row(
        "data.unlabeled_store:open_for_writing 1",
        message_of(write_to_store),
        "Wait for it",
        store_free,
        store_in_use,
    ),
    # ---- folds
    "three cases": Row(
        "data.nnunet_folds:_too_few 1",
        of_doctor("splits_final.json"),
        "nnunet_ssl splits -d 901 --folds 3",
        OBEY,
        dataset=(("labeled", 3),),
    ),
    "three cases, splits": Row(
        "data.split_folds:make_folds 1",
        SPLITS,
        "Repeat this command with --folds 3",
        (*SPLITS, "--folds", "3"),
        dataset=(("labeled", 3),),
    ),
    "other folds are there": Row(
        "data.nnunet_folds:folds_to_write 1",
        (*SPLITS, "--folds", "2"),
        "Leave out --folds to use it",
        SPLITS,
        folds(FOLDS),
    ),
    "folds that are no JSON": Row(
        "data.split_folds:load_folds 1", SPLITS, "nnU-Net writes", folds(FOLDS), folds(b"[{")
    ),
    "folds of numbers": Row(
        "data.split_folds:load_folds 2",
        SPLITS,
        "Correct that file",
        folds(FOLDS),
        folds([{"train": [1, 2], "val": [3]}]),
    ),
    "folds of unknown cases": Row(
        "data.split_folds:read_folds 1",
        SPLITS,
        "Correct that file",
        folds(FOLDS),
        folds([{"train": ["gone"], "val": CASES[:1]}]),
    ),
    "folds that divide subjects": Row(
        "data.split_folds:read_folds 2",
        GROUPED,
        "give --ignore-existing-folds",
        (*GROUPED, "--ignore-existing-folds", "--folds", "3"),
        lambda here: (folds(FOLDS)(here), here.file("groups.json", SUBJECTS)),
    ),
    "doctor: folds of unknown cases": Row(
        "doctor.settings_files:_nnunet_folds 1",
        of_doctor("splits_final.json"),
        "or delete it before the first training run",
        lambda here: (here.base / "splits_final.json").unlink(),
        folds([{"train": ["gone"], "val": CASES[:1]}]),
    ),
    # ---- splits
    "subjects of some cases": Row(
        "data.split_inputs:read_groups 1",
        (*GROUPED, "--folds", "3"),
        "Give every labelled case exactly one subject",
        lambda here: here.file("groups.json", SUBJECTS),
        lambda here: here.file("groups.json", {CASES[0]: "a"}),
    ),
    "a fold without a labelled case": Row(
        "data.split_making:_create 1",
        LISTED,
        "Add a training case of each of these folds to the list",
        lambda here: here.file("list.json", CASES[:2]),
        lambda here: (folds(FOLDS)(here), here.file("list.json", CASES[:1])),
    ),
    "the same, asked of the function": Row(
        "data.split_making:make_split 1",
        message_of(
            lambda here: make_split(
                Request("own", cases=json.loads((here.folder / "list.json").read_text())),
                [TrainVal(["b"], ["a"])],
                {},
                0,
            )
        ),
        "Add a training case of each of these folds to the list",
        lambda here: here.file("list.json", ["a", "b"]),
        lambda here: here.file("list.json", ["a"]),
    ),
    "a new case has no subject": Row(
        "data.split_making:_stored_groups 1",
        SPLITS,
        "Give --groups",
        (*GROUPED, "--folds", "3"),
        lambda here: (
            write_splits(
                str(here.base),
                Splits(
                    DATASET, {c: c for c in CASES[:5]}, {"n2": Split(0.4, 0, [Fold(CASES[:2], CASES[2:4], CASES[4:5])])}
                ),
            ),
            here.file("groups.json", SUBJECTS),
        ),
    ),
    "names of other splits": Row(
        "data.split_making:refuse_other_content 1",
        (*SPLITS, "--seed", "1"),
        "Choose other names with --names",
        (*SPLITS, "--seed", "1", "--names", "other"),
        lambda here: here.said_by(SPLITS),
    ),
    "no such split": Row(
        "data.splits:find_split 1",
        (*PLANS, "--split", "n3"),
        "nnunet_ssl splits -d 901 --counts 3",
        OBEY,
        lambda here: write_split(here.base),
    ),
    "splits that are no JSON": Row(
        "data.splits:read_splits 2",
        (*PLANS, "--split", "l10"),
        "delete it and make the splits again",
        OBEY,
        lambda here: (here.base / "splits_ssl.json").write_text("{"),
    ),
    "splits of another version": Row(
        "data.splits:read_splits 3",
        (*PLANS, "--split", "l10"),
        "delete it and make the splits again",
        OBEY,
        splits_file(lambda c: c.update(version=9)),
    ),
    "splits of another dataset": Row(
        "data.splits:read_splits 4",
        (*PLANS, "--split", "l10"),
        "delete it and make the splits again",
        OBEY,
        splits_file(lambda c: c.update(dataset="X")),
    ),
    "splits of another form": Row(
        "data.splits:_from_json 1",
        (*PLANS, "--split", "l10"),
        "delete it and make the splits again",
        OBEY,
        splits_file(lambda c: c.update(groups=[])),
    ),
    "splits being written": Row("data.splits:locked_splits 1", SPLITS, "Wait for it", free, in_use),
    "doctor: no splits": Row(
        "doctor.settings_files:split_findings 1",
        of_doctor("splits_ssl.json"),
        "nnunet_ssl splits -d 901 --fractions 0.1",
        OBEY,
    ),
    "doctor: a split of unknown cases": Row(
        "doctor.settings_files:_split 1",
        of_doctor("split n2"),
        "make the splits again",
        ("splits", "-d", "901", "--counts", "2", "--overwrite"),
        unknown_case,
    ),
    "doctor: a class that nobody shows": Row(
        "doctor.class_findings:class_findings 1",
        of_doctor("classes"),
        "take it out of dataset.json",
        lambda here: dataset_json(here, lambda content: content["labels"].pop("box")),
        lambda here: [hide(here.base, case, 2) for case in CASES],
    ),
    "doctor: a class that a fold does not show": Row(
        "doctor.class_findings:class_findings 2",
        of_doctor("classes, n2"),
        "withhold others: nnunet_ssl splits -d 901 --labeled-from",
        lambda here: write_split(here.base, Fold(CASES[1:3], CASES[3:5], CASES[5:])),
        lambda here: (hide(here.base, CASES[0], 2), write_split(here.base, Fold(CASES[:1], CASES[2:5], CASES[5:]))),
    ),
    "damaged properties": Row(
        "data.shown_classes:shown_classes 1",
        of_doctor("classes"),
        "nnUNetv2_preprocess -d 901 -c 3d_fullres",
        OBEY,
        lambda here: (here.base / "nnUNetPlans_3d_fullres" / "tiny_000.pkl").write_bytes(b"x"),
    ),
    "a configuration that is not in the plans": Row(
        "data.recipes:_data_identifiers 1",
        ("preprocess", "-d", "901", "-c", "4d", "-np", "1"),
        "Choose with -c from: 2d, 3d_fullres",
        PREPROCESS,
    ),
    "an image reader that is not installed": Row(
        "data.recipes:_check_classes 1",
        PREPROCESS,
        "Install the nnU-Net that made these plans, or plan again: nnUNetv2_plan_and_preprocess -d 901",
        plans_back,
        foreign_plans,
    ),
    "no dataset.json": Row(
        "data.unlabeled:_dataset_json 1",
        PREPROCESS,
        "Put nnU-Net's dataset.json",
        lambda here: shutil.copy(here.folder / "kept.json", here.base / "dataset.json"),
        no_dataset_json,
    ),
    "settings that do not exist": Row(
        "planning.plans_copy:make_plans_copy 1",
        (*PLANS, "--hyperparameters", "nnUNetTrainerFixMatch:ema=1"),
        "those of a trainer: nnunet_ssl methods -tr TRAINER",
        (*PLANS, "--hyperparameters", "nnUNetTrainerFixMatch:ema_decay=0.9"),
    ),
    "settings of another form": Row(
        "planning.plans_copy:parse_settings_of_all 1",
        (*PLANS, "--training", "num_epochs"),
        "Write every setting in that form",
        (*PLANS, "--training", "num_epochs=3"),
    ),
    "a patch of too few axes": Row(
        "planning.small_network:_refused 1",
        (*PLANS, "-c", "3d_fullres", "--patch", "16", "16"),
        "what they take: nnunet_ssl plans --help",
        (*PLANS, "-c", "3d_fullres", "--patch", "16", "16", "16"),
    ),
    # ---- doctor, the rest
    "doctor: no such configuration": Row(
        "doctor.dataset:data_findings 1",
        of_doctor("4d", "4d"),
        "choose from: 2d, 3d_fullres",
        nobody,
        then=of_doctor("2d", "2d"),
    ),
    "a recommendation: no such configuration": Row(
        "recommendation.facts:facts_of 1",
        ("methods", "--for", "901", "-c", "4d"),
        "Choose from: 2d, 3d_fullres",
        ("methods", "--for", "901", "-c", "2d"),
    ),
    # ---- files that people write
    "a byte-order mark": Row(
        "data.text_files:read_text 3", SPLITS, "without", folds(FOLDS), folds("\ufeff[]".encode())
    ),
    "no such file": Row(
        "data.text_files:read_text 1", LISTED, "Put the file there", lambda here: here.file("list.json", CASES)
    ),
    "a folder for a file": Row(
        "data.text_files:read_text 2",
        ("splits", "-d", "901", "--labeled-from", "{folder}", "--names", "own"),
        "or give the path of one that can be read",
        LISTED,
        lambda here: here.file("list.json", CASES),
    ),
    "a comma too many": Row(
        "data.text_files:_no_json 1",
        LISTED,
        "this says where: python -m json.tool ",
        lambda here: here.file("list.json", CASES),
        lambda here: here.file("list.json", b'["tiny_000",]'),
    ),
    "a list where a dictionary belongs": Row(
        "data.text_files:read_json 1",
        PREPROCESS,
        "Write a dictionary {...} there",
        lambda here: shutil.copy(here.folder / "kept.json", here.base / "dataset.json"),
        list_for_dataset_json,
    ),
    "no YAML": Row(
        "data.text_files:_no_yaml 1",
        ("benchmark", "-o", "{folder}/out", "--manifest", "{folder}/manifest.yaml", "--write", "sh"),
        "Correct it there",
        lambda here: here.file("manifest.yaml", MANIFEST),
        lambda here: (write_split(here.base), here.file("manifest.yaml", b"datasets: [901")),
    ),
    "Latin-1": Row(
        "data.text_files:read_text 4",
        LISTED,
        "UTF-8",
        lambda here: here.file("list.json", CASES),
        lambda here: here.file("list.json", b'["caf\xe9"]'),
    ),
    "no text": Row(
        "data.text_files:_no_text 1",
        LISTED,
        "UTF-8",
        lambda here: here.file("list.json", CASES),
        lambda here: here.file("list.json", bytes(9)),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_followed_the_complaint_is_gone(make_dataset, tmp_path, monkeypatch, capsys, name):
    folder = tmp_path / "files"
    folder.mkdir()
    row = ROWS[name]
    base = make_dataset(preprocess=False, **dict(row.dataset or ()))
    check(row, Here(base, folder, monkeypatch, capsys))
