"""How many teachers there are where nobody says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from nnunet_ssl.data.folders import preprocessed_base
from nnunet_ssl.data.split_folds import NNUNET_FOLDS, NNUNET_NUMBER_OF_FOLDS, load_folds
from nnunet_ssl.data.splits import read_splits
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.selftrain.settings import FOLDS
from nnunet_ssl.system.failures import raise_failure

NUMBER = 3


def number_of_teachers(values: Mapping[str, Any]) -> int:
    """3; of folds as many as the split, or nnU-Net's cross-validation, has.

    Args:
        values: settings as far as they were given, with "dataset".
    """
    if values.get("teachers") != FOLDS:
        return NUMBER
    try:
        base = preprocessed_base(values["dataset"])
        if values.get("split") is not None:
            return len(read_splits(base).splits[values["split"]].folds)
        path = os.path.join(base, NNUNET_FOLDS)
        return len(load_folds(path)) if os.path.isfile(path) else NNUNET_NUMBER_OF_FOLDS
    except (SemiSupervisedError, KeyError) as error:  # told with all other problems
        raise_failure(error)
        return NNUNET_NUMBER_OF_FOLDS
