"""Steps that make D_k: a dataset.json that points to images and labels where they are, plans, folds, preprocessing."""

from __future__ import annotations

import copy
import json
import os
import shutil
from typing import Any

from nnunet_ssl.data.dataset_json import read_dataset_json
from nnunet_ssl.data.folders import load_plans, write_json, write_whole
from nnunet_ssl.data.split_folds import NNUNET_FOLDS, REPEATS
from nnunet_ssl.data.text_files import read_json
from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.benchmark.checks import REFERENCES
from nnunet_ssl.selftrain.dataset_ids import number_of
from nnunet_ssl.selftrain.keys import preprocessed_folder
from nnunet_ssl.selftrain.repeats import repeats
from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.settings import IGNORE, PRETRAIN
from nnunet_ssl.selftrain.step_run import StepRun
from nnunet_ssl.training.settings import BLOCK

IGNORED_LABEL = "ignore"  # nnU-Net's name of it in dataset.json


def make(step_run: StepRun) -> None:
    """dataset.json, fingerprint, plans and folds of D_k."""
    run, k = step_run.run_of, step_run.job.round
    source, target, plans = run.settings.dataset, run.student_dataset(k), run.settings.student_plans
    number = str(number_of(target))
    raw, base = run.student_raw(k), run.student_base(k)
    os.makedirs(raw, exist_ok=True)
    os.makedirs(base, exist_ok=True)
    with step_run.stage("dataset", ["write", os.path.join(raw, "dataset.json")]):
        content = dataset_json(run, k, kept_cases(run, k))
        for folder in (raw, base):
            write_json(os.path.join(folder, "dataset.json"), content)
    words = ["nnUNetv2_extract_fingerprint", "-d", number, "-np", step_run.processes, "--clean"]
    step_run.command("fingerprint", words, step_run.lock("fingerprint"))
    words = ["nnUNetv2_move_plans_between_datasets", "-s", source, "-t", target, "-sp", plans, "-tp", plans]
    step_run.command("plans", words, step_run.lock("plans"))
    with step_run.stage("splits", ["write", os.path.join(base, NNUNET_FOLDS)]):
        without_split(base, plans)
        write_whole(os.path.join(base, NNUNET_FOLDS), json.dumps(folds(run, k), indent=4).encode())


def preprocess(step_run: StepRun) -> None:
    """nnUNetv2_preprocess with the very plans of the dataset, so that intensities are normalised alike."""
    run, k = step_run.run_of, step_run.job.round
    number = str(number_of(run.student_dataset(k)))
    shutil.rmtree(os.path.join(run.student_base(k), REFERENCES), ignore_errors=True)  # nnU-Net keeps newer ones
    words = ["nnUNetv2_preprocess", "-d", number, "-c", run.settings.configuration]
    words += ["-plans_name", run.settings.student_plans, "-np", step_run.processes]
    step_run.command("preprocess", words, step_run.lock("preprocess"))
    if step_run.keys.missing(step_run.job):
        raise complain(
            f"nnUNetv2_preprocess ended without an error, but {preprocessed_folder(run, k)} is empty.",
            remedy=f"See what it said in {step_run.log}, and give the command again once the cause is removed.",
        )


def kept_cases(run: Run, round_number: int) -> list[str]:
    """Cases whose pseudo-label the selection has kept, as selection.json says now.

    Raises:
        SemiSupervisedError: a case of it is not in the pool.
    """
    path = run.selection_file(round_number)
    kept = [entry["case"] for entry in read_json(path, dict)["cases"] if entry["kept"]]
    if unknown := sorted(set(kept) - set(run.pool)):
        raise complain(f"{path} keeps cases that are not in the pool:", unknown, "Correct the file, or delete it.")
    return sorted(kept)


def dataset_json(run: Run, round_number: int, kept: list[str]) -> dict[str, Any]:
    """That of the dataset, with one entry per labelled and kept case; all paths absolute, no image is copied."""
    content = copy.deepcopy(read_dataset_json(os.path.join(run.raw, "dataset.json")))
    labels = run.labels_folder(round_number)
    entries = {case: {"images": run.files[case]["images"], "label": run.files[case]["label"]} for case in run.labeled}
    entries |= {case: {"images": run.pool[case], "label": os.path.join(labels, case + run.ending)} for case in kept}
    content["dataset"] = {
        case: {
            "images": [os.path.abspath(file) for file in entry["images"]],
            "label": os.path.abspath(entry["label"]),
        }
        for case, entry in sorted(entries.items())
    }
    content["numTraining"] = len(entries)
    if run.settings.voxels == IGNORE:
        content["labels"] = {**content["labels"], IGNORED_LABEL: ignore_value(run)}
    return content


def ignore_value(run: Run) -> int:
    """The ignore label of the dataset; else one above the highest label."""
    return run.labels.ignore if run.labels.ignore is not None else max(run.labels.known) + 1


def folds(run: Run, round_number: int) -> list[dict[str, Any]]:
    """splits_final.json of D_k: labelled cases, repeated, and the kept ones; validation cases as they were.

    The folds keep their numbers, so those before the first one in use are copies of it.
    """
    kept = kept_cases(run, round_number)
    made = {}
    for number, fold in run.folds.items():
        train = list(kept)
        if run.settings.mode != PRETRAIN:
            train += fold.labeled * repeats(run.settings.labeled_share, len(kept), len(fold.labeled))
        made[number] = {"train": sorted(train), "val": list(fold.val), REPEATS: True}
    first = made[min(made)]
    return [made.get(number, first) for number in range(max(made) + 1)]


def without_split(base: str, plans: str) -> None:
    """The plans of D_k name no split: its folds are those of splits_final.json."""
    content = load_plans(base, plans)
    if content.get(BLOCK, {}).get("split") is not None:
        block = {key: value for key, value in content[BLOCK].items() if key != "split"}
        write_json(os.path.join(base, f"{plans}.json"), {**content, BLOCK: block}, indent=4)
