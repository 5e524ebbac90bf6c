"""Numbers and names of the students' datasets."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw, nnUNet_results

FIRST = 901
NUMBER = re.compile(r"Dataset(\d+)_")


def number_of(name: str) -> int:
    """DatasetXXX_Name -> XXX"""
    match = NUMBER.match(name)
    assert match is not None  # nnU-Net has resolved the name, or choose has made it
    return int(match[1])


def taken() -> dict[int, list[str]]:
    """Number -> names of the datasets in any of nnU-Net's three folders that have it."""
    found: dict[int, list[str]] = {}
    for variable in (nnUNet_raw, nnUNet_preprocessed, nnUNet_results):
        folder = variable.get()
        for name in os.listdir(folder) if folder and os.path.isdir(folder) else []:
            if match := NUMBER.match(name):
                names = found.setdefault(int(match[1]), [])
                if name not in names:
                    names.append(name)
    return found


def choose(dataset: str, rounds: int, first: int | None, own: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Names for D_1 to D_rounds, and what stands against them.

    Args:
        dataset: full name of the labelled one.
        rounds: how many names.
        first: number of the first, the others follow; None: free ones from FIRST on.
        own: names that an earlier start of the same run has chosen; they are kept, those of more rounds, too.
    """
    stem, used = NUMBER.sub("", dataset), taken()
    names, problems = list(own), []
    if own and first not in (None, number_of(own[0])):
        problems.append(f"--dataset-id {first}: this run has begun with {own[0]} -> leave that option out")
    number = FIRST if first is None else first + len(names)
    while len(names) < rounds:
        if first is None:
            while number in used:
                number += 1
        elif number in used:
            problems.append(
                f"dataset id {number} is taken by {', '.join(used[number])} -> give another --dataset-id, or none"
            )
        names.append(f"Dataset{number:03d}_{stem}_selftrain_{len(names) + 1}")
        number += 1
    for name in own[:rounds]:
        others = [n for n in used.get(number_of(name), []) if n != name]
        if others:
            problems.append(f"the id of {name} is now also that of {', '.join(others)} -> rename or remove that one")
    return tuple(names), problems
