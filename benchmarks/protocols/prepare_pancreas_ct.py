"""Pancreas-CT (NIH, The Cancer Imaging Archive) -> nnU-Net raw dataset.

    python benchmarks/protocols/prepare_pancreas_ct.py -i Pancreas-CT -l TCIA_pancreas_labels-02-05-2017 -d 202

Official layout: PANCREAS_0001/.../*.dcm, one DICOM series per folder, and label0001.nii.gz for the labels. Today's
collection has no images for PANCREAS_0025 and PANCREAS_0070, whose labels are still there: they are left out.

The labels carry no DICOM position. They are turned to the orientation of the images by their headers; since a flipped
label would go unnoticed, each case is checked: its label must lie on soft tissue, and on no less of it than any
flipped version of it does. --flip mirrors the labels where the headers lead astray.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from functools import partial
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import SimpleITK as sitk

sys.path.insert(0, str(Path(__file__).resolve().parent))
from raw_dataset import Case, Recipe, add_common_arguments, complain_about_layout, run, write_raw_dataset

from nnunet_ssl.errors import complain

LAYOUT = "PANCREAS_0001/.../*.dcm with one series each, and label0001.nii.gz in the folder of the labels"
ORIENTATION = "LPS"
WITHDRAWN = {25, 70}
SOFT_TISSUE = (-160, 240)  # HU
LEAST_SHARE, CLEARLY = 0.9, 0.02
AXES = "xyz"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", required=True, metavar="FOLDER", help="the folder with PANCREAS_0001, ...")
    parser.add_argument("-l", required=True, metavar="FOLDER", help="the folder with label0001.nii.gz, ...")
    parser.add_argument("--flip", default="", help="mirror all labels along these of the axes x, y, z, e.g. --flip z")
    add_common_arguments(parser, 202)
    args = parser.parse_args(argv)
    if set(args.flip) - set(AXES):
        parser.error(f"--flip takes letters of {AXES}, got {args.flip}")
    return run(lambda: write_raw_dataset(recipe(args.flip), find_cases(args.i, args.l), args.d, args.np))


def recipe(flip: str = "") -> Recipe:
    return Recipe(
        name="PancreasCT",
        channel="CT",
        labels={"background": 0, "pancreas": 1},
        values={0: 0, 1: 1},
        reference="https://doi.org/10.7937/K9/TCIA.2016.TNB1KQBU",
        licence="CC BY 3.0",
        read_image=read_series,
        read_label=partial(read_label, flip=flip),
        check=soft_tissue_problems,
    )


def find_cases(folder: str, labels: str) -> list[Case]:
    """The volumes that have images.

    Raises:
        SemiSupervisedError: none; folders with no or several series; volumes without label, labels without volume.
    """
    problems, series = [], {}
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        if not (match := re.fullmatch(r"PANCREAS_(\d{4})", name)):
            continue
        found = [root for root, _, files in os.walk(os.path.join(folder, name)) if any(_is_dicom(f) for f in files)]
        if len(found) == 1:
            series[int(match[1])] = found[0]
        elif found or int(match[1]) not in WITHDRAWN:
            problems.append(f"{os.path.join(folder, name)}: {len(found)} folders with DICOM files, 1 expected")
    names = os.listdir(labels) if os.path.isdir(labels) else []
    numbers = {int(match[1]): name for name in names if (match := re.fullmatch(r"label(\d{4})\.nii(\.gz)?", name))}
    problems += [f"{series[number]}: no label" for number in sorted(set(series) - set(numbers))]
    without = sorted(set(numbers) - set(series) - WITHDRAWN)
    problems += [f"{os.path.join(labels, numbers[number])}: no images" for number in without]
    if problems or not series:
        raise complain_about_layout(f"{folder} or {labels}", problems or ["no volume"], LAYOUT)
    return [Case(f"PANCREAS_{n:04d}", series[n], os.path.join(labels, numbers[n])) for n in sorted(series)]


def read_series(folder: str) -> sitk.Image:
    """The volume of one DICOM series, in LPS orientation.

    Raises:
        SemiSupervisedError: several series in the folder.
    """
    identifiers = sitk.ImageSeriesReader.GetGDCMSeriesIDs(folder)
    if len(identifiers) != 1:
        raise complain(f"{folder} holds {len(identifiers)} DICOM series, 1 expected")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder, identifiers[0]))
    return sitk.DICOMOrient(reader.Execute(), ORIENTATION)


def read_label(path: str, flip: str = "") -> sitk.Image:
    """A label in LPS orientation, mirrored along the given axes."""
    label = sitk.DICOMOrient(sitk.ReadImage(path), ORIENTATION)
    return sitk.Flip(label, [axis in flip for axis in AXES]) if flip else label


def soft_tissue_problems(image: sitk.Image, label: sitk.Image) -> list[str]:
    """Whether the label lies where soft tissue is, and no mirrored version lies there clearly better."""
    array = sitk.GetArrayViewFromImage(image)
    tissue = (array >= SOFT_TISSUE[0]) & (array <= SOFT_TISSUE[1])
    mask = sitk.GetArrayViewFromImage(label) > 0
    shares = {}
    for axes in chain.from_iterable(combinations(AXES, number) for number in range(len(AXES) + 1)):
        mirrored = np.flip(mask, tuple(2 - AXES.index(axis) for axis in axes))  # arrays are ordered z, y, x
        shares["".join(axes)] = float(tissue[mirrored].mean())
    best = max(shares, key=lambda axes: shares[axes])
    problems = []
    if shares[""] < LEAST_SHARE:
        problems.append(f"only {shares['']:.0%} of the label lies on soft tissue")
    if shares[best] > shares[""] + CLEARLY:
        problems.append(
            f"mirrored along {best} the label fits better ({shares[best]:.0%}, not {shares['']:.0%}); see --flip"
        )
    return problems


def _is_dicom(name: str) -> bool:
    return name.lower().endswith(".dcm")


if __name__ == "__main__":
    sys.exit(main())
