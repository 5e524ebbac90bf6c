"""What is examined, in the order in which things have to be right."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from nnunet_ssl.data.dataset_json import read_dataset_json
from nnunet_ssl.data.folders import load_plans, preprocessed_base
from nnunet_ssl.data.recipes import check_complete
from nnunet_ssl.data.split_folds import NNUNET_FOLDS
from nnunet_ssl.doctor.class_findings import class_findings
from nnunet_ssl.doctor.dataset import Dataset, data_findings, labeled_ids
from nnunet_ssl.doctor.environment import environment_findings
from nnunet_ssl.doctor.installation import device_findings, installation_findings
from nnunet_ssl.doctor.lookup import trainer_findings
from nnunet_ssl.doctor.memory import memory_findings
from nnunet_ssl.doctor.report import NOTE, OK, WRONG, Finding, Section, from_error
from nnunet_ssl.doctor.settings_files import plans_findings, split_findings
from nnunet_ssl.errors import SemiSupervisedError


def examine_installation(lookup: dict[str, dict[str, Any]] | str) -> list[Section]:
    """Everything that does not depend on a dataset.

    Args:
        lookup: nnU-Net's answers for our trainers, or why there are none.
    """
    return [
        Section("Installation", installation_findings()),
        Section("Environment", environment_findings()),
        Section("Trainers, by nnU-Net's own look-up", trainer_findings(lookup)),
        Section("Training on this machine", device_findings()),
    ]


def examine_dataset(
    dataset_name_or_id: str | int,
    plans_identifier: str = "nnUNetPlans",
    configurations: Sequence[str] | None = None,
) -> list[Section]:
    """Data, splits and settings of one dataset.

    Args:
        dataset_name_or_id: as for nnU-Net's commands.
        plans_identifier: whose configurations are looked at.
        configurations: only these; None: all, and one preprocessed configuration is enough.
    """
    try:
        base = preprocessed_base(dataset_name_or_id)
    except SemiSupervisedError as error:
        return [Section(f"Dataset {dataset_name_or_id}", [from_error("dataset", error)])]
    name = os.path.basename(base)
    known: set[str] = set()
    dataset_json: dict[str, Any] | None = None
    dataset = None
    try:
        dataset_json = read_dataset_json(os.path.join(base, "dataset.json"))
        dataset = Dataset(base, plans_identifier, load_plans(base, plans_identifier), dataset_json)
        labeled = labeled_ids(dataset)
        known = {case for cases in labeled.values() for case in cases}
        check_complete(dataset.plans, os.path.join(base, f"{plans_identifier}.json"))
        data = data_findings(dataset, labeled, configurations)
        usable = {name: cases for name, cases in labeled.items() if configurations is None or name in configurations}
        data += memory_findings(dataset, usable) if not any(f.mark == WRONG for f in data) else []
    except SemiSupervisedError as error:
        data = [from_error(plans_identifier, error)]
    data.append(_writable(base, data))
    folds, splits = split_findings(base, known)
    folds += class_findings(dataset, splits, known) if dataset is not None else []
    return [
        Section(f"Data of {name}, {plans_identifier}", data),
        Section(f"Splits of {name}", folds),
        Section(f"Settings in the plans of {name}", plans_findings(base, splits, dataset_json)),
    ]


def _writable(base: str, data: Sequence[Finding]) -> Finding:
    """A folder that is complete may be read-only, as shared ones are."""
    if os.access(base, os.W_OK | os.X_OK):
        return Finding(OK, "folder", base)
    text = f"{base} cannot be written to; preprocessing, splits and plans will fail"
    complete = os.path.isfile(os.path.join(base, NNUNET_FOLDS)) and not any(f.mark == WRONG for f in data)
    remedy = "get write permission there, or copy the folder to your own space and set nnUNet_preprocessed"
    return Finding(NOTE if complete else WRONG, "folder", text, remedy)
