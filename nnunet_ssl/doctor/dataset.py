"""Whether the labelled and unlabelled cases of each configuration are preprocessed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nnunetv2.paths import nnUNet_raw
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_ssl.data.folders import dataset_id
from nnunet_ssl.data.foreign_files import deletion, foreign_files
from nnunet_ssl.data.image_folder import ImageFolder, list_images
from nnunet_ssl.data.labeled_state import older_than
from nnunet_ssl.data.outdated import find_outdated
from nnunet_ssl.data.pool_remedies import IMAGES, commands_to_make_again, commands_to_remove
from nnunet_ssl.data.preprocess_case import settings_hash, source_record
from nnunet_ssl.data.unlabeled_store import (
    is_up_to_date,
    made_with_other_settings,
    unlabeled_folder,
    unlabeled_identifiers,
)
from nnunet_ssl.doctor.report import NOTE, OK, WRONG, Finding
from nnunet_ssl.errors import SemiSupervisedError, some
from nnunet_ssl.training.settings import BLOCK

UNLABELED = " unlabelled"  # at the end of the item of a finding on images without label


@dataclass(frozen=True)
class Dataset:
    """What the checks of one dataset share.

    Attributes:
        base: nnUNet_preprocessed/DatasetXXX_Name.
        plans_identifier: name of the plans file.
        plans: its content.
        dataset_json: as planning left it.
    """

    base: str
    plans_identifier: str
    plans: dict[str, Any]
    dataset_json: dict[str, Any]

    @property
    def number(self) -> int:
        return dataset_id(os.path.basename(self.base))

    def command(self, program: str, configuration: str) -> str:
        """nnUNetv2_preprocess or `nnunet_ssl preprocess` for one configuration."""
        plans = "-plans_name" if program == "nnUNetv2_preprocess" else "-p"
        return f"{program} -d {self.number} -c {configuration} {plans} {self.plans_identifier}"


def labeled_ids(dataset: Dataset) -> dict[str, list[str]]:
    """Configuration -> preprocessed labelled cases, for those that are no cascade stage."""
    manager = PlansManager(dataset.plans)
    result = {}
    for name in manager.available_configurations:
        configuration = manager.get_configuration(name)
        if configuration.previous_stage_name is None and "data_identifier" in configuration.configuration:
            result[name] = unlabeled_identifiers(os.path.join(dataset.base, configuration.data_identifier))
    return result


def data_findings(dataset: Dataset, labeled: dict[str, list[str]], wanted: Sequence[str] | None) -> list[Finding]:
    """Labelled and unlabelled cases per configuration; ``wanted``: only these, and they have to be there."""
    unknown = [name for name in wanted or [] if name not in labeled]
    findings = [
        Finding(
            WRONG,
            name,
            f"no configuration of {dataset.plans_identifier} that semi-supervised trainers support",
            f"choose from: {', '.join(labeled)}",
        )
        for name in unknown
    ]
    images, remarks = _images(dataset)
    findings += remarks
    usable = [name for name, cases in labeled.items() if cases and (wanted is None or name in wanted)]
    outdated = find_outdated(dataset.base, dataset.plans, usable, dataset.dataset_json)
    if outdated is not None:  # what is said of the data otherwise would send people to preprocess with old plans
        return [*findings, Finding(WRONG, "preprocessing", outdated.text, "\n".join(outdated.commands))]
    for name, cases in labeled.items():
        if wanted is None or name in wanted:
            findings.append(_labeled(dataset, name, cases, required=wanted is not None or not any(labeled.values())))
            if cases:
                findings.append(_unlabeled(dataset, name, cases, images))
    return findings


def _images(dataset: Dataset) -> tuple[ImageFolder | None, list[Finding]]:
    """The raw images without labels, where they are on this machine."""
    if not nnUNet_raw.is_set():
        return None, []
    folder = os.path.join(nnUNet_raw, os.path.basename(dataset.base), IMAGES)
    try:
        images = list_images(folder, dataset.dataset_json["file_ending"])
    except SemiSupervisedError as error:
        return None, [Finding(NOTE, IMAGES, str(error))]
    if images.problems:
        remedy = f"correct the names; nnunet_ssl preprocess -d {dataset.number} lists all of them"
        return images, [Finding(WRONG, IMAGES, f"{folder}: {some(images.problems)}", remedy)]
    return images, [Finding(OK, IMAGES, f"{len(images.cases)} images without labels in {folder}")]


def _labeled(dataset: Dataset, name: str, cases: list[str], required: bool) -> Finding:
    item, command = f"{name} labelled", dataset.command("nnUNetv2_preprocess", name)
    if not cases:
        return Finding(WRONG if required else NOTE, item, "not preprocessed", command)
    configuration = PlansManager(dataset.plans).get_configuration(name)
    folder = os.path.join(dataset.base, configuration.data_identifier)
    if foreign := foreign_files(folder):
        text = f"{folder} holds files that belong to no case: {some(os.path.basename(file) for file in foreign)}"
        return Finding(WRONG, item, text, deletion(foreign))
    expected = dataset.dataset_json.get("numTraining")
    if isinstance(expected, int) and expected != len(cases):
        text = f"{len(cases)} cases, but dataset.json says {expected}"
        if set(cases) != _raw_labeled(dataset):
            return Finding(NOTE, item, text, command)
        return Finding(NOTE, item, text, f"correct numTraining in dataset.json, in {dataset.base} and in nnUNet_raw")
    plans_file = os.path.join(dataset.base, f"{dataset.plans_identifier}.json")
    if BLOCK not in dataset.plans and older_than(folder, plans_file):  # settings may be written at any time
        text = f"{len(cases)} cases, older than {dataset.plans_identifier}.json; if it was planned again since then:"
        return Finding(NOTE, item, text, command)
    return Finding(OK, item, f"{len(cases)} cases")


def _raw_labeled(dataset: Dataset) -> set[str]:
    """The labelled cases of nnUNet_raw, which nnU-Net would preprocess; none where that is not on this machine."""
    folder = os.path.join(nnUNet_raw, os.path.basename(dataset.base)) if nnUNet_raw.is_set() else ""
    if not os.path.isdir(folder):
        return set()
    return set(get_filenames_of_train_images_and_targets(folder, dataset.dataset_json))


def _unlabeled(dataset: Dataset, name: str, labeled: list[str], images: ImageFolder | None) -> Finding:
    configuration = PlansManager(dataset.plans).get_configuration(name)
    folder = unlabeled_folder(os.path.join(dataset.base, configuration.data_identifier))
    item, command = f"{name}{UNLABELED}", dataset.command("nnunet_ssl preprocess", name)
    try:
        finished = unlabeled_identifiers(folder)
    except SemiSupervisedError as error:
        return Finding(WRONG, item, str(error).splitlines()[0], shlex.join(["rm", "-r", folder]) + f"\n{command}")
    both = set(finished) & set(labeled)
    if both:
        text = f"labelled cases among the unlabelled ones in {folder}: {some(both)}"
        return Finding(WRONG, item, text, "\n".join(commands_to_remove(dataset.base, folder, both)))
    cases = images.cases if images else {}
    missing = set(cases) - set(finished)
    if missing:
        done = len(cases) - len(missing)
        text = f"{done} of {len(cases)} images preprocessed; missing: {some(missing)}"
        return Finding(WRONG, item, text, command)
    if not finished:
        text = "none; only a split that withholds labels gives semi-supervised trainers something to use"
        return Finding(NOTE, item, text, f"put images into {IMAGES}, then: {command}")
    settings = settings_hash(dataset.plans, name, dataset.dataset_json)
    others = [case for case in finished if made_with_other_settings(folder, case, settings)]
    if others:
        text = f"{len(others)} of {len(finished)} cases, made with other settings than the plans': {some(others)}"
        return Finding(WRONG, item, text, "\n".join(commands_to_make_again(dataset.base, folder, others, command)))
    old = [c for c, files in cases.items() if not is_up_to_date(folder, c, source_record(files, settings))]
    if old:
        text = f"{len(finished)} cases, made from other image files: {some(old)}"
        return Finding(NOTE, item, text, command)
    elsewhere = len(finished) - len(cases)
    counts = f"{len(cases)} of {len(cases)} images" if cases else ""
    extra = f"{elsewhere} cases whose images are elsewhere" if elsewhere else ""
    return Finding(OK, item, " and ".join(part for part in (counts, extra) if part))
