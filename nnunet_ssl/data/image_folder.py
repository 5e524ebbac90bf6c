"""Which cases a folder of images holds, by nnU-Net's naming: {case}_{0000}{ending}."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES

from nnunet_ssl.errors import complain

NNUNET_ENDINGS = {ending for reader in LIST_OF_IO_CLASSES for ending in reader.supported_file_endings}
OTHER_ENDINGS = {
    *(".jpg", ".jpeg", ".gif", ".webp", ".dcm", ".ima", ".mhd", ".raw", ".zraw", ".nhdr", ".hdr", ".img", ".img.gz"),
    *(".gipl.gz", ".mgh", ".mgz", ".mnc", ".vtk", ".vti", ".npy", ".npz", ".b2nd"),
}
IMAGE_ENDINGS = tuple(sorted(NNUNET_ENDINGS | OTHER_ENDINGS))
TEXT_ENDINGS = (".json", ".txt", ".csv", ".tsv", ".md", ".yaml", ".yml", ".xml", ".html", ".log", ".pdf", ".xlsx")
CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


@dataclass(frozen=True)
class ImageFolder:
    """Content of a folder.

    Attributes:
        path: the folder.
        cases: case id -> paths of its files in the order of the channels; only cases with faultless names.
        problems: one line per wrong name, in the order of the names.
    """

    path: str
    cases: dict[str, list[str]]
    problems: list[str]


def list_images(folder: str, file_ending: str) -> ImageFolder:
    """The cases of a folder. Hidden files, sub-folders and files that are no images (README.txt, .json) are ignored.

    Raises:
        SemiSupervisedError: the folder does not exist or holds no image.
    """
    remedy = f"Put the images without labels there, named like imagesTr: CASE_0000{file_ending}. No labels are needed."
    if not os.path.isdir(folder):
        raise complain(f"The folder of images without labels does not exist: {folder}.", remedy=remedy)
    names = sorted(n for n in os.listdir(folder) if not n.startswith("."))
    channels: dict[str, list[int]] = {}
    problems = []
    for name in names:
        if os.path.isdir(os.path.join(folder, name)):
            continue
        if name.endswith(file_ending):
            match = CHANNEL.fullmatch(name[: -len(file_ending)])
            if match:
                channels.setdefault(match["case"], []).append(int(match["channel"]))
            else:
                problems.append(f"{name}: the channel is missing in the name, expected CASE_0000{file_ending}")
        elif _looks_like_an_image(name):
            problems.append(f"{name}: wrong file ending, the images of this dataset end in {file_ending}")
    if not channels and not problems:
        raise complain(f"There is no image in {folder}.", remedy=remedy)
    cases = {}
    for case, found in channels.items():
        problem = _numbering_problem(case, sorted(found), file_ending)
        if problem:
            problems.append(problem)
        else:
            cases[case] = [os.path.join(folder, f"{case}_{channel:04d}{file_ending}") for channel in sorted(found)]
    return ImageFolder(folder, cases, problems)


def _looks_like_an_image(name: str) -> bool:
    lower = name.lower()
    if lower.endswith(TEXT_ENDINGS):
        return False
    return lower.endswith(IMAGE_ENDINGS) or re.search(r"_\d{4}(\.|$)", name) is not None


def _numbering_problem(case: str, channels: list[int], file_ending: str) -> str:
    if case.endswith("_seg"):
        return f'{case}: a case id may not end in "_seg", which nnU-Net uses for segmentations'
    missing = [f"{case}_{c:04d}{file_ending}" for c in range(channels[-1]) if c not in channels]
    if missing:
        return f"{case}: wrong number of channels, missing {', '.join(missing)}"
    return ""
