"""The command that writes a plans copy again, from its source and with its own settings."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_ssl.data.plans_block import BLOCK, CHANGED
from nnunet_ssl.data.published_networks import recognised


def assignment(key: str, value: Any) -> str:
    """num_epochs=200: what the command line reads as just this value."""
    return f"{key}={value}" if isinstance(value, str) and not _is_json(value) else f"{key}={json.dumps(value)}"


def rewriting_command(dataset: int, plans: Mapping[str, Any], source: str, original: Mapping[str, Any]) -> str:
    """`nnunet_ssl plans ...` with everything that stands in the settings block of the copy.

    Args:
        dataset: number of the dataset.
        plans: content of the copy.
        source: name of the plans that it is a copy of.
        original: their content.
    """
    block = plans.get(BLOCK, {})
    words = ["nnunet_ssl", "plans", "-d", str(dataset), "-p", source, "--name", plans["plans_name"]]
    words += small_network_options(plans, original)
    if block.get("split") is not None:
        words += ["--split", block["split"]]
    if block.get("training"):
        words += ["--training", *(assignment(key, value) for key, value in block["training"].items())]
    if block.get("prediction"):
        words += ["--prediction", *(assignment(key, value) for key, value in block["prediction"].items())]
    of_trainers = [
        f"{trainer}:{assignment(key, value)}"
        for trainer, values in block.get("hyperparameters", {}).items()
        for key, value in values.items()
    ]
    words += ["--hyperparameters", *of_trainers] if of_trainers else []
    return shlex.join([*words, "--overwrite"])


def small_network_options(plans: Mapping[str, Any], original: Mapping[str, Any]) -> list[str]:
    """The options that gave the copy its small network; none where its source has that network already."""
    of_source = original.get(BLOCK, {}).get(CHANGED, {})
    words: list[str] = []
    for configuration, keys in plans.get(BLOCK, {}).get(CHANGED, {}).items():
        if keys and configuration not in of_source:
            own = plans["configurations"][configuration]
            published = recognised(own["architecture"])
            words += ["-c", configuration]
            if published is None:
                words += ["--features", *_words(own["architecture"]["arch_kwargs"]["features_per_stage"])]
            else:
                network, dropout, features = published
                words += ["--network", network]
                words += [] if dropout is None else ["--dropout", f"{dropout:g}"]
                words += [] if features is None else ["--features", *_words(features)]
            words += ["--patch", *_words(own["patch_size"]), "--batch", str(own["batch_size"])]
            words += ["--spacing", *_words(own["spacing"])] if "spacing" in keys else []
    return words


def _words(numbers: Sequence[float]) -> list[str]:
    return [f"{number:g}" for number in numbers]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
