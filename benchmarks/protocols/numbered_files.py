"""Images and labels that belong together by the number in their names."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence


def find_pairs(
    image_folders: Sequence[str], image_pattern: str, label_folders: Sequence[str], label_pattern: str
) -> tuple[dict[int, tuple[str, str]], list[str]]:
    """Number -> (image, label), sorted, and problems: missing folders, numbers that occur twice or on one side only.

    Args:
        image_pattern, label_pattern: of whole file names; the first group is the number. Other files are ignored.
    """
    images, problems = _numbered(image_folders, image_pattern)
    labels, more = _numbered(label_folders, label_pattern)
    problems = list(dict.fromkeys(problems + more))
    problems += [f"{images[number]}: no label" for number in sorted(set(images) - set(labels))]
    problems += [f"{labels[number]}: no image" for number in sorted(set(labels) - set(images))]
    return {number: (images[number], labels[number]) for number in sorted(set(images) & set(labels))}, problems


def _numbered(folders: Sequence[str], pattern: str) -> tuple[dict[int, str], list[str]]:
    found: dict[int, str] = {}
    problems = []
    for folder in folders:
        if not os.path.isdir(folder):
            problems.append(f"{folder}: no such folder")
            continue
        for name in sorted(os.listdir(folder)):
            match = re.fullmatch(pattern, name)
            if match is None:
                continue
            path, number = os.path.join(folder, name), int(match[1])
            if number in found:
                problems.append(f"{path}: the same number as {found[number]}")
            found.setdefault(number, path)
    return found, problems
