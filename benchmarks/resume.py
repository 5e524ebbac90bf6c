"""What is left of a command of a page, where an earlier run was stopped: nothing, the rest of a training, or all of it.

Commands that look for themselves are always run: `nnunet_ssl plans`, `apply.py` and the scripts prepare_*.py and
as_published.py leave what is equal and refuse what is not, so that a changed page never meets old plans.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

SCORES = "evaluation.json"


def left_of(command: str) -> str | None:
    """The command, with nnU-Net's --c or --val where a training goes on; ``None``: it is done."""
    words = shlex.split(os.path.expandvars(command))
    program = " ".join(words[:2])
    if program.startswith("nnUNetv2_train"):
        return _left_of_training(command, words)
    if program.startswith("nnUNetv2_plan_and_preprocess"):
        return None if _is_preprocessed(words) else command
    if program == "python -m":  # a converter of nnU-Net's, which would write into what is there
        return None if _datasets("nnUNet_raw", words[words.index("-d") + 1]) else command
    if words[0] == "mv":
        return None if os.path.isdir(words[2]) and not os.path.exists(words[1]) else command
    if program in ("nnunet_ssl evaluate", "nnunet_ssl predict-as-paper") or "as_published.py back" in command:
        return None if _is_scored(words) else command
    return command


def _datasets(variable: str, number: str) -> list[Path]:
    """Complete data sets of that number."""
    found = Path(os.environ[variable]).glob(f"Dataset{int(number):03d}_*")
    return sorted(folder for folder in found if (folder / "dataset.json").is_file())


def _left_of_training(command: str, words: list[str]) -> str | None:
    number, configuration, fold = words[1:4]
    plans, trainer = (words[words.index(option) + 1] for option in ("-p", "-tr"))
    pattern = f"Dataset{int(number):03d}_*/{trainer}__{plans}__{configuration}/fold_{fold}"
    for folder in Path(os.environ["nnUNet_results"]).glob(pattern):
        if (folder / "checkpoint_final.pth").is_file():
            return None if (folder / "validation" / "summary.json").is_file() else f"{command} --val"
        if (folder / "checkpoint_latest.pth").is_file():
            return f"{command} --c"
    return command


def _is_preprocessed(words: list[str]) -> bool:
    """Whether every case of the raw data set is in the folder of the configuration."""
    number, configuration = (words[words.index(option) + 1] for option in ("-d", "-c"))
    raw, base = _datasets("nnUNet_raw", number), _datasets("nnUNet_preprocessed", number)
    if not (raw and base and (base[0] / "nnUNetPlans.json").is_file()):
        return False
    cases = {re.sub(r"(\.nii\.gz|\.png)$", "", path.name) for path in (raw[0] / "labelsTr").iterdir()}
    return cases <= {path.stem for path in (base[0] / f"nnUNetPlans_{configuration}").glob("*.pkl")}


def _is_scored(words: list[str]) -> bool:
    """Whether the scores of what this command writes are there; predictions on another grid lie below them."""
    folder = Path(words[words.index("-o" if "-o" in words else "-pred") + 1])
    return any((place / SCORES).is_file() for place in (folder, folder.parent))
