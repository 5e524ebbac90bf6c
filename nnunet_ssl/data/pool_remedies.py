"""Where the images of preprocessed cases without label are, and the commands that put such cases right."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence

from nnunetv2.paths import nnUNet_raw
from nnunetv2.utilities.utils import get_identifiers_from_splitted_dataset_folder

from nnunet_ssl.data.dataset_json import read_dataset_json
from nnunet_ssl.data.unlabeled_store import case_files, folder_of_images

IMAGES = "imagesUn"


def images_folder(base: str) -> str | None:
    """nnUNet_raw/DatasetXXX_Name/imagesUn, whether it exists or not; None where nnUNet_raw is not set."""
    return os.path.join(nnUNet_raw, os.path.basename(base), IMAGES) if nnUNet_raw.is_set() else None


def raw_cases(base: str) -> list[str]:
    """Case ids in imagesUn of the raw dataset; none where the raw data are not on this machine."""
    folder = images_folder(base)
    if folder is None or not os.path.isdir(folder):
        return []
    return cases_in(folder, read_dataset_json(os.path.join(base, "dataset.json"))["file_ending"])


def cases_in(folder: str, file_ending: str) -> list[str]:
    """Case ids of the images in a folder, without hidden files (._case_0000.nii.gz of macOS); none if it is absent."""
    if not os.path.isdir(folder):
        return []
    cases = get_identifiers_from_splitted_dataset_folder(folder, file_ending)
    return [str(case) for case in cases if not case.startswith(".")]


def commands_to_make_again(base: str, folder: str, cases: Iterable[str], command: str) -> list[str]:
    """Commands after which each of these preprocessed cases is up to date or no longer there.

    Args:
        base: nnUNet_preprocessed/DatasetXXX_Name.
        folder: the preprocessed folder of the images without labels.
        cases: finished cases in it.
        command: the `nnunet_ssl preprocess` call that makes those in imagesUn again.
    """
    here = set(raw_cases(base))
    wanted, lost, elsewhere = list(cases), [], set[str]()
    for case in wanted:
        if case not in here:
            images = folder_of_images(folder, case)
            if images is None:
                lost.append(case)
            else:
                elsewhere.add(images)
    commands = [command] if here & set(wanted) else []
    commands += [f"{command} -i {shlex.quote(images)}" for images in sorted(elsewhere)]
    return commands + ([removal(folder, lost)] if lost else [])


def commands_to_remove(base: str, folder: str, cases: Iterable[str]) -> list[str]:
    """Commands that take cases out of the pool: preprocessed files go, their images in imagesUn are put aside."""
    wanted, images = sorted(cases), images_folder(base)
    commands = [removal(folder, wanted)]
    if images is None or not os.path.isdir(images):
        return commands
    ending = read_dataset_json(os.path.join(base, "dataset.json"))["file_ending"]
    name = re.compile(f"({'|'.join(map(re.escape, wanted))})_\\d{{4}}{re.escape(ending)}")
    found = [os.path.join(images, file) for file in sorted(os.listdir(images)) if name.fullmatch(file)]
    aside = f"{images}_labelled"
    return [*commands, shlex.join(["mkdir", "-p", aside]), shlex.join(["mv", *found, aside])] if found else commands


def removal(folder: str, cases: Sequence[str]) -> str:
    """The command that takes preprocessed cases out of a folder."""
    return shlex.join(["rm", "-f", *(path for case in cases for path in case_files(folder, case))])
