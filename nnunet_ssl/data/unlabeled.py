"""`nnunet_ssl preprocess`: the images without labels, preprocessed with the plans of the labelled cases."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunetv2.configuration import default_num_processes
from nnunetv2.paths import nnUNet_raw

from nnunet_ssl.data.dataset_json import read_dataset_json
from nnunet_ssl.data.folders import preprocessed_base
from nnunet_ssl.data.image_checks import CaseReport, check_images, needs_of
from nnunet_ssl.data.image_folder import ImageFolder, list_images
from nnunet_ssl.data.image_ranges import TOLERANCE, unusual_cases
from nnunet_ssl.data.pool_remedies import IMAGES, cases_in
from nnunet_ssl.data.preprocess_case import Recipe, preprocess_case, settings_hash, source_record
from nnunet_ssl.data.recipes import find_recipes
from nnunet_ssl.data.text_files import read_json
from nnunet_ssl.data.unlabeled_store import (
    is_up_to_date,
    open_for_writing,
    tidy,
    unlabeled_folder,
    unlabeled_identifiers,
)
from nnunet_ssl.data.workers import Workers
from nnunet_ssl.errors import SemiSupervisedError, complain

__all__ = ["IMAGES", "check_images", "preprocess_unlabeled", "unlabeled_folder", "unlabeled_identifiers"]

NOT_COMPARED = "spacing and size are not compared with those of the labelled cases"


@dataclass(frozen=True)
class Remaining:
    """What one preprocessed folder still needs.

    Attributes:
        recipe: how.
        records: case id -> what its properties will say it was made from.
        pending: cases to preprocess; the others are finished and unchanged.
        outdated: the pending ones that are finished already.
        reason: why these are made again.
    """

    recipe: Recipe
    records: dict[str, dict[str, Any]]
    pending: list[str]
    outdated: list[str]
    reason: str


def preprocess_unlabeled(
    dataset_name_or_id: str | int,
    configurations: Sequence[str] | None = None,
    plans_identifier: str = "nnUNetPlans",
    input_folder: str | None = None,
    num_processes: int = default_num_processes,
    overwrite: bool = False,
) -> list[str]:
    """Preprocess images without labels for semi-supervised training. Repeating it skips what is done and unchanged.

    Args:
        dataset_name_or_id: of the labelled dataset, which must be planned and preprocessed by nnU-Net.
        configurations: of the plans; None: all whose labelled cases are preprocessed.
        plans_identifier: name of the plans file.
        input_folder: where the images are; None: nnUNet_raw/DatasetXXX_Name/imagesUn.
        num_processes: at most this many worker processes; 1 works in this process.
        overwrite: preprocess finished cases again.

    Returns:
        the folders written to, ``<data_identifier>__unlabeled``.

    Raises:
        SemiSupervisedError: anything that makes an image unusable (all of them listed, nothing preprocessed), missing
            plans or labelled data, cases that nnU-Net failed on (the others are finished and kept).
    """
    base = preprocessed_base(dataset_name_or_id)
    raw = os.path.join(nnUNet_raw, os.path.basename(base)) if nnUNet_raw.is_set() else None
    dataset_json = _dataset_json(base, raw)
    _say(f"Semi-supervised training: preprocessing the images without labels of {os.path.basename(base)}")
    recipes = find_recipes(base, plans_identifier, configurations, dataset_json)
    images = list_images(_image_folder(raw, input_folder), dataset_json["file_ending"])
    todo = [_remaining(recipe, images, overwrite) for recipe in recipes]
    pending = [case for case in images.cases if any(case in remaining.pending for remaining in todo)]
    _say(f"{len(images.cases)} cases in {images.path}")
    with Workers(min(num_processes, max(1, len(pending)))) as workers:
        known = [*images.problems, *_labeled_too(images, base, raw, recipes, dataset_json)]
        configurations = [name for recipe in recipes for name in recipe.configurations]
        needs = needs_of(recipes[0].plans, configurations, dataset_json)
        unread = {case: images.cases[case] for case in pending}
        reports = check_images(images.path, unread, needs, workers, known)
        _warn_about(reports, base)
        for remaining in todo:
            _run(remaining, images, workers)
    _mention_others(recipes, images, raw, dataset_json)
    return [recipe.folder for recipe in recipes]


def _dataset_json(base: str, raw: str | None) -> dict[str, Any]:
    """dataset.json as planning left it, else of the raw dataset."""
    paths = [os.path.join(folder, "dataset.json") for folder in (base, raw) if folder]
    for path in paths:
        if os.path.isfile(path):
            return read_dataset_json(path)
    raise complain(
        f"There is no dataset.json: {' and '.join(paths)} do not exist.",
        remedy="Put nnU-Net's dataset.json, which names channels, classes and the files' ending, there.",
    )


def _image_folder(raw: str | None, input_folder: str | None) -> str:
    if input_folder is not None:
        return os.path.abspath(input_folder)
    if raw is None:
        raise complain(
            f"The environment variable nnUNet_raw is not set, so {IMAGES} cannot be found.",
            remedy="Say where that folder is: export nnUNet_raw=FOLDER   (or name the folder of the images with -i)",
        )
    return os.path.join(raw, IMAGES)


def _remaining(recipe: Recipe, images: ImageFolder, overwrite: bool) -> Remaining:
    settings = settings_hash(recipe.plans, recipe.configurations[0], recipe.dataset_json)
    records = {case: source_record(files, settings) for case, files in images.cases.items()}
    finished = set(unlabeled_identifiers(recipe.folder))
    pending = [
        case
        for case, record in records.items()
        if overwrite or case not in finished or not is_up_to_date(recipe.folder, case, record)
    ]
    reason = "--overwrite" if overwrite else "the image or the settings changed"
    return Remaining(recipe, records, pending, [case for case in pending if case in finished], reason)


def _labeled_too(
    images: ImageFolder, base: str, raw: str | None, recipes: Sequence[Recipe], dataset_json: Mapping[str, Any]
) -> list[str]:
    """Cases that are labelled ones as well; their validation would not be one."""
    places: dict[str, str] = dict.fromkeys(dataset_json.get("dataset", {}), "dataset.json")
    for recipe in recipes:
        folder = os.path.join(base, recipe.data_identifier)
        places |= dict.fromkeys(unlabeled_identifiers(folder), folder)
    if raw is not None:
        places |= dict.fromkeys(cases_in(os.path.join(raw, "imagesTr"), dataset_json["file_ending"]), "imagesTr")
    return [f"{case}: also a labelled case (in {places[case]})" for case in images.cases if case in places]


def _warn_about(reports: Sequence[CaseReport], base: str) -> None:
    path = os.path.join(base, "dataset_fingerprint.json")
    try:
        unusual = unusual_cases(reports, read_json(path))
    except (SemiSupervisedError, ValueError, TypeError, IndexError) as error:
        _warn(f"{path} cannot be used ({str(error).splitlines()[0]}): {NOT_COMPARED}.")
    else:
        _warn_of_cases(f"spacing or size differs from the labelled cases by more than a factor of {TOLERANCE}", unusual)
    remarks = [f"{report.case}: {remark}" for report in reports for remark in report.remarks]
    _warn_of_cases("these images can be used, but look at them", remarks)


def _warn_of_cases(what: str, lines: Sequence[str]) -> None:
    if lines:
        _warn("\n".join([f"{what}:", *(f"  - {line}" for line in lines)]))


def _say(text: str) -> None:
    print(text, flush=True)


def _warn(text: str) -> None:
    print(f"Warning: {text}", file=sys.stderr)


def _run(remaining: Remaining, images: ImageFolder, workers: Workers) -> None:
    recipe, pending = remaining.recipe, remaining.pending
    names = ", ".join(recipe.configurations)
    again = f" ({', '.join(remaining.outdated)} again: {remaining.reason})" if remaining.outdated else ""
    finished = len(images.cases) - len(pending)
    _say(f"{names}: {finished} finished before, {len(pending)} to do{again} -> {recipe.folder}")
    if not pending:
        tidy(recipe.folder)
        return
    with open_for_writing(recipe.folder) as scratch:
        tasks = {case: (recipe, scratch, case, images.cases[case], remaining.records[case]) for case in pending}
        outcomes = workers.map(preprocess_case, tasks, f"Preprocessing {names}")
    failed = [f"{case}: {reason}" for case, reason in outcomes.items() if reason]
    if failed:
        raise complain(
            f"{len(failed)} of {len(tasks)} cases could not be preprocessed for {names}:",
            failed,
            "The other cases are finished and kept. Correct or remove these images and run the command again.",
        )


def _mention_others(
    recipes: Sequence[Recipe], images: ImageFolder, raw: str | None, dataset_json: Mapping[str, Any]
) -> None:
    """What a person might overlook: cases of earlier runs stay in the pool, and so do test images."""
    for recipe in recipes:
        others = sum(case not in images.cases for case in unlabeled_identifiers(recipe.folder))
        if others:
            _say(
                f"{recipe.folder} also holds {others} cases that are not in {images.path}. They stay in the unlabelled "
                "pool; delete their files there if that is not wanted."
            )
    tests = set(cases_in(os.path.join(raw, "imagesTs"), dataset_json["file_ending"])) if raw is not None else set()
    shared = sum(case in tests for case in images.cases)
    if shared:
        _warn(
            f"{shared} of {len(images.cases)} cases are also in imagesTs. Training on test images without their labels "
            "is called transductive; say so where you report results on them."
        )
