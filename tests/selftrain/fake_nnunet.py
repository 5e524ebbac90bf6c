"""Stands in for the nnU-Net commands of a self-training: leaves what they leave, within milliseconds.

Predictions are the references, shifted by a voxel for some cases, so that teachers differ and are repeatable: those of
seed 0 are the references themselves. A file named like a command in the folder "orders" beside nnUNet_results tells it
to "fail", or to "wait" for its removal after half of the work.
"""

import gzip
import json
import os
import pathlib
import re
import shutil
import sys
import time


def place(name):
    """One of nnU-Net's folders, or what they lie in."""
    return pathlib.Path(os.environ["nnUNet_results"]).parent / (f"nnUNet_{name}" if name else "")


def value(options, key):
    return options[options.index(key) + 1]


def obey(command):
    order = place("") / "orders" / command
    if order.exists() and order.read_text() == "fail":
        sys.exit("RuntimeError: made to fail")
    while order.exists():
        time.sleep(0.02)


def train(dataset, configuration, fold, *options):
    plans, trainer = value(options, "-p"), value(options, "-tr")
    folder = place("results") / dataset / f"{trainer}__{plans}__{configuration}" / f"fold_{fold}"
    folder.mkdir(parents=True, exist_ok=True)
    if "-pretrained_weights" in options:
        assert pathlib.Path(value(options, "-pretrained_weights")).exists()
    settings = json.loads((place("preprocessed") / dataset / f"{plans}.json").read_text())["nnunet_ssl"]
    (folder / "checkpoint_latest.pth").touch()
    obey("nnUNetv2_train")
    for epoch in settings["training"].get("kept_epochs", ()):
        shutil.copy(place("") / "checkpoint_final.pth", folder / f"checkpoint_epoch_{epoch}.pth")
    shutil.copy(place("") / "checkpoint_final.pth", folder)
    (folder / "checkpoint_latest.pth").unlink()
    validation = folder / "validation"
    validation.mkdir(exist_ok=True)
    for case in cases_of(place("preprocessed") / dataset, settings.get("split"), int(fold)):
        shutil.copy(reference(f"{case}.nii.gz"), validation)
    (validation / "summary.json").write_text("{}")


def cases_of(base, split, fold):
    if split is not None:
        return json.loads((base / "splits_ssl.json").read_text())["splits"][split]["folds"][fold]["val"]
    return json.loads((base / "splits_final.json").read_text())[fold]["val"]


def reference(name):
    """Of any case, wherever it is; those of imagesUn are kept beside the folders."""
    places = [*place("raw").glob("*/labelsTr"), place("") / "hidden"]
    return next(folder / name for folder in places if (folder / name).exists())


def predict(*options):
    target = pathlib.Path(value(options, "-o"))
    target.mkdir(parents=True, exist_ok=True)
    checkpoint = place("results") / value(options, "-d") / "__".join(value(options, key) for key in ("-tr", "-p", "-c"))
    assert (checkpoint / f"fold_{value(options, '-f')}" / value(options, "-chk")).exists()
    seed = int(re.search(r"_s(\d+)_", value(options, "-p"))[1])
    for number, image in enumerate(sorted(pathlib.Path(value(options, "-i")).iterdir())):
        if number == 1:
            obey("nnUNetv2_predict")
        name = image.name.replace("_0000", "")
        if not (target / name).exists():
            shift(reference(name), target / name, seed if number % 2 else 0)


def shift(source, target, voxels):
    """The label map moved along its last axis, without a library: NIfTI-1 has a header of 352 bytes."""
    content = gzip.decompress(source.read_bytes())
    header, data = content[:352], content[352:]
    moved = bytes(voxels) + data[: len(data) - voxels]
    target.write_bytes(gzip.compress(header + moved, mtime=0))


def extract_fingerprint(*options):
    base = folder_of(value(options, "-d"), "preprocessed")
    base.mkdir(parents=True, exist_ok=True)
    (base / "dataset_fingerprint.json").write_text("{}")


def move_plans(*options):
    plans = json.loads((place("preprocessed") / value(options, "-s") / f"{value(options, '-sp')}.json").read_text())
    plans["dataset_name"] = value(options, "-t")
    (place("preprocessed") / value(options, "-t") / f"{value(options, '-tp')}.json").write_text(json.dumps(plans))


def preprocess(*options):
    base, raw = (folder_of(value(options, "-d"), name) for name in ("preprocessed", "raw"))
    plans = json.loads((base / f"{value(options, '-plans_name')}.json").read_text())
    target = base / plans["configurations"][value(options, "-c")]["data_identifier"]
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    obey("nnUNetv2_preprocess")
    for case in json.loads((raw / "dataset.json").read_text())["dataset"]:
        for ending in (".b2nd", "_seg.b2nd", ".pkl"):
            (target / f"{case}{ending}").touch()


def folder_of(number, name):
    (folder,) = place("raw").glob(f"Dataset{int(number):03d}_*")
    return place(name) / folder.name


COMMANDS = {
    "nnUNetv2_train": train,
    "nnUNetv2_predict": predict,
    "nnUNetv2_extract_fingerprint": extract_fingerprint,
    "nnUNetv2_move_plans_between_datasets": move_plans,
    "nnUNetv2_preprocess": preprocess,
}
