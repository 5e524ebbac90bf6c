"""KiTS19 (210 labelled cases: kidney, tumour) -> nnU-Net raw dataset.

    python benchmarks/protocols/prepare_kits19.py -i kits19/data -d 204

Official layout: case_00000/imaging.nii.gz and case_00000/segmentation.nii.gz. Cases from 00210 on have no segmentation
and are left out. (nnU-Net's converter for KiTS2023 writes other labels, regions with cysts.)
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from raw_dataset import Case, Recipe, add_common_arguments, cases_in_folders, run, write_raw_dataset

LABELED = 210
LAYOUT = "case_00000/imaging.nii.gz and case_00000/segmentation.nii.gz; the images come with `starter_code.get_imaging`"
RECIPE = Recipe(
    name="KiTS19",
    channel="CT",
    labels={"background": 0, "kidney": 1, "tumor": 2},
    values={0: 0, 1: 1, 2: 2},
    reference="https://kits19.grand-challenge.org/",
    licence="see the reference",
)
WHOLE_KIDNEY = replace(RECIPE, name="KiTS19Whole", labels={"background": 0, "kidney": 1}, values={0: 0, 1: 1, 2: 1})
"""As the code of the protocol that PLGCL cites."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", required=True, metavar="FOLDER", help="the folder data of the repository kits19")
    parser.add_argument("--one-class", action="store_true", help="kidney and tumour are one class, the whole kidney")
    add_common_arguments(parser, 204)
    args = parser.parse_args(argv)
    recipe = WHOLE_KIDNEY if args.one_class else RECIPE
    return run(lambda: write_raw_dataset(recipe, find_cases(args.i), args.d, args.np))


def find_cases(folder: str) -> list[Case]:
    """The labelled cases.

    Raises:
        SemiSupervisedError: none, or cases below 210 without one of the two files.
    """
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    names = [name for name in names if (match := re.fullmatch(r"case_(\d{5})", name)) and int(match[1]) < LABELED]
    return cases_in_folders(folder, names, ("imaging.nii.gz", "segmentation.nii.gz"), "no case", LAYOUT)


if __name__ == "__main__":
    sys.exit(main())
