"""A dataset in nnU-Net's raw format from files of another layout: checked, and written as a whole or not at all.

The scripts prepare_*.py find the files; reading, checking and writing are the same for all of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json
from nnunetv2.paths import nnUNet_raw

from nnunet_ssl.data.text_files import read_json
from nnunet_ssl.data.workers import Workers
from nnunet_ssl.errors import SemiSupervisedError, complain

ORIGIN = "made_of"  # key in dataset.json
TOLERANCE = 1e-3  # mm, and of direction cosines


@dataclass(frozen=True)
class Case:
    """One case to convert.

    Attributes:
        identifier: the name it gets.
        image: file, or folder of one DICOM series.
        label: file.
    """

    identifier: str
    image: str
    label: str


@dataclass(frozen=True)
class Recipe:
    """What is the same for all cases of a dataset.

    Attributes:
        name: as in DatasetXXX_name.
        channel: nnU-Net's name of the channel; "CT" makes it normalise as CT.
        labels: name -> value in the written files.
        values: value in the source -> value written; every value of a label file must be a key.
        reference, licence: for dataset.json.
        read_image, read_label: path -> image; picklable.
        check: (image, label) -> problems; picklable, after the two are on one grid.
    """

    name: str
    channel: str
    labels: dict[str, int]
    values: dict[int, int]
    reference: str
    licence: str
    read_image: Callable[[str], sitk.Image] = sitk.ReadImage
    read_label: Callable[[str], sitk.Image] = sitk.ReadImage
    check: Callable[[sitk.Image, sitk.Image], list[str]] | None = None


def add_common_arguments(parser: argparse.ArgumentParser, number: int) -> None:
    parser.add_argument("-d", type=int, default=number, metavar="ID", help=f"number of the dataset (default: {number})")
    parser.add_argument("-np", type=int, default=4, help="processes (default: 4)")


def run(prepare: Callable[[], str]) -> int:
    """Call ``prepare`` and print the folder it made, or the error for a person."""
    try:
        print(f"Dataset in {prepare()}")
    except SemiSupervisedError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    return 0


def complain_about_layout(folder: str, problems: Sequence[str], expected: str) -> SemiSupervisedError:
    return complain(f"{folder} is not laid out like the official download:", problems, f"Expected: {expected}")


def cases_in_folders(
    folder: str, names: Sequence[str], files: tuple[str, str], nothing: str, layout: str
) -> list[Case]:
    """One case per named folder, which holds the two files, image and label.

    Raises:
        SemiSupervisedError: no name, which is said as ``nothing``, or files that are missing, all listed.
    """
    cases = [Case(name, *(os.path.join(folder, name, file) for file in files)) for name in names]
    problems = [f"{path}: missing" for case in cases for path in (case.image, case.label) if not os.path.isfile(path)]
    if problems or not cases:
        raise complain_about_layout(folder, problems or [nothing], layout)
    return cases


def write_raw_dataset(recipe: Recipe, cases: Sequence[Case], number: int, processes: int = 1) -> str:
    """Convert all cases into nnUNet_raw/DatasetXXX_name. It appears when it is complete.

    One that was made of files of the same names and sizes in the same way is left as it is.

    Raises:
        SemiSupervisedError: nnUNet_raw is not set, the dataset exists, or bad cases, all listed; nothing is left then.
    """
    base = nnUNet_raw.get()
    if not base:
        raise complain("The environment variable nnUNet_raw is not set.", remedy="Set nnU-Net's paths first.")
    target = os.path.join(base, f"Dataset{number:03d}_{recipe.name}")
    origin = origin_of(recipe, cases)
    if is_there(base, target, number, origin, "-d"):
        return target
    temporary = os.path.join(base, f".{os.path.basename(target)}.{os.getpid()}.tmp")
    try:
        for folder in ("imagesTr", "labelsTr"):
            os.makedirs(os.path.join(temporary, folder))
        with Workers(processes) as workers:
            tasks = {case.identifier: (recipe, case, temporary) for case in cases}
            results = workers.map(convert_case, tasks, "Converting")
        problems = [f"{name}: {problem}" for name, (found, _) in results.items() for problem in found]
        if problems:
            raise complain("These cases cannot be converted:", problems)
        notes = [f"NOTE: {name}: {note}" for name, (_, found) in results.items() for note in found]
        write_dataset_json(temporary, recipe, len(cases), **{ORIGIN: origin})
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if notes:
        print("\n".join(notes))
    return target


def is_there(base: str, target: str, number: int, origin: str, option: str) -> bool:
    """Whether the dataset exists already, made of the same; says so.

    Raises:
        SemiSupervisedError: another one has the number.
    """
    taken = [name for name in _listdir(base) if name.startswith(f"Dataset{number:03d}_")]
    if taken == [os.path.basename(target)] and recorded_origin(target) == origin:
        print(
            f"Dataset {number} exists already, made of files of the same names and sizes in the same way: "
            "left as it is."
        )
        return True
    if taken:
        raise complain(
            f"Dataset {number} exists in {base}, made of other files or in another way:",
            taken,
            f"Delete it, or choose another number with {option}.",
        )
    return False


def recorded_origin(folder: str) -> str | None:
    """What :func:`write_raw_dataset` noted in the dataset."""
    path = os.path.join(folder, "dataset.json")
    return read_json(path, dict).get(ORIGIN) if os.path.isfile(path) else None


def origin_of(recipe: Recipe, cases: Sequence[Case]) -> str:
    """A digest of what a dataset is made of: names and sizes of the files, and what becomes of their labels."""
    files = [[case.identifier, *(_size(path) for path in (case.image, case.label))] for case in cases]
    made = [recipe.name, recipe.channel, recipe.labels, sorted(recipe.values.items()), files]
    return digest(made)


def digest(made: Any) -> str:
    """Of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(made).encode()).hexdigest()[:16]


def _size(path: str) -> int:
    """Bytes of a file, or of the files of a folder."""
    if not os.path.isdir(path):
        return os.path.getsize(path) if os.path.isfile(path) else -1
    return sum(entry.stat().st_size for entry in os.scandir(path) if entry.is_file())


def write_dataset_json(folder: str, recipe: Recipe, number_of_cases: int, **more: Any) -> None:
    generate_dataset_json(
        folder,
        {0: recipe.channel},
        recipe.labels,
        number_of_cases,
        ".nii.gz",
        dataset_name=recipe.name,
        reference=recipe.reference,
        license=recipe.licence,
        converted_by="benchmarks/protocols of nnunet_ssl",
        **more,
    )


def convert_case(recipe: Recipe, case: Case, folder: str) -> tuple[list[str], list[str]]:
    """Read, check and write one case; returns problems and notes."""
    try:
        image, label = recipe.read_image(case.image), recipe.read_label(case.label)
    except (RuntimeError, SemiSupervisedError) as error:
        reason = str(error).strip().splitlines()
        return [f"not readable ({reason[-1] if reason else error!r})"], []
    label, problems, notes = onto_grid(image, label)
    if not problems:
        label, problems = with_values(label, recipe.values)
    if not problems and recipe.check is not None:
        problems = recipe.check(image, label)
    if not problems:
        sitk.WriteImage(image, os.path.join(folder, "imagesTr", f"{case.identifier}_0000.nii.gz"))
        sitk.WriteImage(label, os.path.join(folder, "labelsTr", f"{case.identifier}.nii.gz"))
    return problems, notes


def onto_grid(image: sitk.Image, label: sitk.Image) -> tuple[sitk.Image, list[str], list[str]]:
    """The label with the image's spacing, origin and direction: voxels are paired by index, as everyone uses them.

    Returns:
        label, problems (another number of dimensions or voxels), notes (headers that differed).
    """
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        return label, [f"the image is not one 3D volume (size {image.GetSize()})"], []
    if image.GetSize() != label.GetSize():
        return label, [f"the image has {image.GetSize()} voxels, the label {label.GetSize()}"], []
    notes = []
    for what in ("Spacing", "Origin", "Direction"):
        of_image, of_label = (getattr(one, f"Get{what}")() for one in (image, label))
        if not np.allclose(of_image, of_label, atol=TOLERANCE):
            notes.append(f"{what.lower()} of the label {_short(of_label)} replaced by the image's {_short(of_image)}")
    label.CopyInformation(image)
    return label, [], notes


def with_values(label: sitk.Image, values: Mapping[int, int]) -> tuple[sitk.Image, list[str]]:
    """The label with mapped values as 8-bit integers, and problems: unknown values, nothing but background."""
    array = sitk.GetArrayViewFromImage(label)
    found = np.unique(array)
    unknown = [value for value in found.tolist() if value not in values]
    if unknown:
        allowed = ", ".join(map(str, values))
        return label, [f"label values {', '.join(f'{value:g}' for value in unknown)}; allowed: {allowed}"]
    if all(values[int(value)] == 0 for value in found):
        return label, ["the label holds background only"]
    mapped = np.zeros(array.shape, np.uint8)
    for value in found:
        mapped[array == value] = values[int(value)]
    result = sitk.GetImageFromArray(mapped)
    result.CopyInformation(label)
    return result, []


def _short(numbers: Sequence[float]) -> str:
    return "(" + ", ".join(f"{number:.4g}" for number in numbers) + ")"


def _listdir(folder: str) -> list[str]:
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []
