"""The command that writes a plans copy again, from its source and with its own settings."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from nnunet_ssl.data.plans_source import BLOCK


def assignment(key: str, value: Any) -> str:
    """num_epochs=200: what the command line reads as just this value."""
    return f"{key}={value}" if isinstance(value, str) and not _is_json(value) else f"{key}={json.dumps(value)}"


def rewriting_command(dataset: int, plans: Mapping[str, Any], source: str) -> str:
    """`nnunet_ssl plans ...` with everything that stands in the settings block of the copy.

    Args:
        dataset: number of the dataset.
        plans: content of the copy.
        source: name of the plans that it is a copy of.
    """
    block = plans.get(BLOCK, {})
    words = ["nnunet_ssl", "plans", "-d", str(dataset), "-p", source, "--name", plans["plans_name"]]
    if block.get("split") is not None:
        words += ["--split", block["split"]]
    if block.get("training"):
        words += ["--training", *(assignment(key, value) for key, value in block["training"].items())]
    of_trainers = [
        f"{trainer}:{assignment(key, value)}"
        for trainer, values in block.get("hyperparameters", {}).items()
        for key, value in values.items()
    ]
    words += ["--hyperparameters", *of_trainers] if of_trainers else []
    return shlex.join([*words, "--overwrite"])


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
