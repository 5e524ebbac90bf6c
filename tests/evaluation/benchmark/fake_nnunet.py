#!/usr/bin/env python3
"""Stands in for nnUNetv2_train and nnUNetv2_predict: leaves what they leave, within milliseconds.

Its predictions are other cases' labels, chosen by the words of the command, so that they differ and are repeatable.
A file named like the trainer in the folder "orders" beside nnUNet_results tells it to misbehave: "fail", or "wait" for
the removal of the file after the first of two epochs.
"""

import hashlib
import json
import os
import pathlib
import shutil
import sys
import time


def say(line):
    print(f"2025-01-01 00:00:00.000000: {line}", flush=True)


def train(dataset, configuration, fold, *options):
    plans, trainer = options[options.index("-p") + 1], options[options.index("-tr") + 1]
    results = pathlib.Path(os.environ["nnUNet_results"])
    base = pathlib.Path(os.environ["nnUNet_preprocessed"], dataset)
    folder = results / dataset / f"{trainer}__{plans}__{configuration}" / f"fold_{fold}"
    folder.mkdir(parents=True, exist_ok=True)
    final, latest = folder / "checkpoint_final.pth", folder / "checkpoint_latest.pth"
    order = results.parent / "orders" / trainer
    if order.exists() and order.read_text() == "fail":
        sys.exit("RuntimeError: made to fail")
    if not final.exists():
        if "--c" not in options or not latest.exists():
            say("Epoch 0")
            say("Epoch time: 1.5 s")
            latest.touch()
        while order.exists():
            time.sleep(0.05)
        say("Epoch 1")
        say("Epoch time: 2.5 s")
        shutil.copy(results.parent / "checkpoint_final.pth", final)
        latest.unlink()
    split = json.loads((base / f"{plans}.json").read_text())["nnunet_ssl"]["split"]
    cases = json.loads((base / "splits_ssl.json").read_text())["splits"][split]["folds"][int(fold)]["val"]
    for case in cases:
        say(f"predicting {case}")
        predict_case(base / "gt_segmentations", case, f"{trainer} {plans}", folder / "validation")
    (folder / "validation" / "summary.json").write_text("{}")


def predict(*options):
    value = {key: options[options.index(key) + 1] for key in ("-i", "-o", "-d", "-tr", "-p")}
    labels = pathlib.Path(os.environ["nnUNet_preprocessed"], value["-d"], "gt_segmentations")
    for image in sorted(pathlib.Path(value["-i"]).iterdir()):
        predict_case(labels, image.name.replace("_0000.nii.gz", ""), value["-tr"], pathlib.Path(value["-o"]))


def predict_case(labels, case, key, target):
    target.mkdir(exist_ok=True, parents=True)
    choice = sorted(labels.iterdir())
    number = int(hashlib.sha256(f"{case} {key}".encode()).hexdigest(), 16) % len(choice)
    shutil.copy(choice[number], target / f"{case}.nii.gz")


if __name__ == "__main__":
    {"nnUNetv2_train": train, "nnUNetv2_predict": predict}[os.path.basename(sys.argv[0])](*sys.argv[1:])
