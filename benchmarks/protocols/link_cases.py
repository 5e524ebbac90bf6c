"""The test cases of a protocol in a folder of their own, as links."""

from __future__ import annotations

import os
from collections.abc import Sequence

from nnunetv2.paths import nnUNet_raw
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_ssl.errors import complain


def link_test_cases(dataset: str, cases: Sequence[str], folder: str) -> str:
    """Links to images and labels of these cases of imagesTr and labelsTr in FOLDER/images and FOLDER/labels.

    Raises:
        SemiSupervisedError: no test cases in the dataset, files missing, or another file where a link must go.
    """
    raw = os.path.join(nnUNet_raw.get() or "", dataset)
    if not nnUNet_raw.get() or not os.path.isdir(raw):
        raise complain(f"--test needs the raw dataset; there is no {raw or dataset}.", remedy="Set nnUNet_raw.")
    if not cases:
        raise complain("The dataset holds no test case of this split.", remedy="Leave out --test.")
    files = get_filenames_of_train_images_and_targets(raw)
    links = {}
    for case in cases:
        for source in files[case]["images"] if case in files else []:
            links[os.path.join(folder, "images", os.path.basename(source))] = os.path.abspath(source)
        if case in files:
            links[os.path.join(folder, "labels", os.path.basename(files[case]["label"]))] = os.path.abspath(
                files[case]["label"]
            )
    problems = [f"{case}: not in {raw}" for case in cases if case not in files]
    problems += [f"{path}: not found" for path in links.values() if not os.path.isfile(path)]
    problems += [f"{link}: is there already" for link, path in links.items() if _is_other(link, path)]
    if problems:
        raise complain("The test cases cannot be linked:", problems)
    for link, path in links.items():
        os.makedirs(os.path.dirname(link), exist_ok=True)
        if not os.path.lexists(link):
            os.symlink(path, link)
    return f"Test cases: {len(cases)} in {os.path.join(folder, 'images')} and {os.path.join(folder, 'labels')}"


def _is_other(link: str, path: str) -> bool:
    return os.path.lexists(link) and os.path.realpath(link) != os.path.realpath(path)
