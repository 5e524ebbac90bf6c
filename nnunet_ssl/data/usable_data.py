"""What is wrong with the preprocessed data of a training, said before anything is written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed

from nnunet_ssl.data.foreign_files import refuse_foreign_files
from nnunet_ssl.data.outdated import refuse_outdated
from nnunet_ssl.data.plans_source import data_identifiers


def refuse_unusable_data(plans: Mapping[str, Any], configuration: str, dataset_json: Mapping[str, Any]) -> None:
    """Refuse files that nnU-Net takes for cases, and plans and data that were overtaken by new planning.

    Data that are not there at all are left to the trainer.

    Raises:
        SemiSupervisedError: with the commands that help.
    """
    base = os.path.join(nnUNet_preprocessed, plans["dataset_name"]) if nnUNet_preprocessed.is_set() else ""
    identifier = data_identifiers(plans).get(configuration)
    if identifier is None or not os.path.isdir(base):
        return
    refuse_foreign_files(os.path.join(base, identifier))
    refuse_outdated(base, plans, [configuration], dataset_json)
