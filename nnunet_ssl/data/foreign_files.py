"""Files in nnU-Net's preprocessed folders that nnU-Net takes for cases, or dies of."""

from __future__ import annotations

import os
import shlex

from nnunetv2.training.dataloading.nnunet_dataset import file_ending_dataset_mapping

from nnunet_ssl.errors import complain

ENDINGS = {*file_ending_dataset_mapping, "npy", "pkl"}


def foreign_files(folder: str) -> list[str]:
    """Paths of hidden files (._case.b2nd and .DS_Store of macOS) and of files that belong to no case."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name) if os.path.isdir(folder) else []
    files = [entry for entry in entries if entry.is_file()]
    return [file.path for file in files if file.name.startswith(".") or file.name.split(".")[-1] not in ENDINGS]


def deletion(files: list[str]) -> str:
    """The command that deletes them."""
    return shlex.join(["rm", "-f", *files])


def refuse_foreign_files(folder: str) -> None:
    """Raise SemiSupervisedError if there are any."""
    files = foreign_files(folder)
    if files:
        raise complain(
            f"{folder} holds files that belong to no case; nnU-Net takes them for cases or cannot read the folder:",
            [os.path.basename(file) for file in files],
            f"Run:\n{deletion(files)}",
        )
