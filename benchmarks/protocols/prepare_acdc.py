"""ACDC (100 labelled patients, the end-diastolic and the end-systolic frame of each) -> nnU-Net raw dataset.

    python benchmarks/protocols/prepare_acdc.py -i ACDC -d 27

Official layout: training/patient001/patient001_frame01.nii.gz with patient001_frame01_gt.nii.gz, and so on; the 4D
files and the folder testing are not used. (nnU-Net's own converter ends with an error in its version 2.8.1.)
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from raw_dataset import Case, Recipe, add_common_arguments, complain_about_layout, run, write_raw_dataset

LAYOUT = "training/patient001/patient001_frame01.nii.gz and patient001_frame01_gt.nii.gz, two frames per patient"
FRAME = re.compile(r"(?P<case>patient\d{3}_frame\d{2})(?P<label>_gt)?\.nii(\.gz)?")
RECIPE = Recipe(
    name="ACDC",
    channel="cineMRI",
    labels={"background": 0, "RV": 1, "MLV": 2, "LVC": 3},
    values={0: 0, 1: 1, 2: 2, 3: 3},
    reference="https://www.creatis.insa-lyon.fr/Challenge/acdc/",
    licence="see the reference",
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", required=True, metavar="FOLDER", help="the folder that holds training")
    add_common_arguments(parser, 27)
    args = parser.parse_args(argv)
    return run(lambda: write_raw_dataset(RECIPE, find_cases(args.i), args.d, args.np))


def find_cases(folder: str) -> list[Case]:
    """The labelled frames.

    Raises:
        SemiSupervisedError: none, or frames without label and labels without frame.
    """
    images, labels = dict[str, str](), dict[str, str]()
    for path in sorted(Path(folder, "training").glob("patient*/*")):
        if match := FRAME.fullmatch(path.name):
            (labels if match["label"] else images)[match["case"]] = str(path)
    problems = [f"{images[case]}: no label" for case in sorted(set(images) - set(labels))]
    problems += [f"{labels[case]}: no image" for case in sorted(set(labels) - set(images))]
    if problems or not images:
        raise complain_about_layout(folder, problems or ["no patient"], LAYOUT)
    return [Case(case, images[case], labels[case]) for case in images]


if __name__ == "__main__":
    sys.exit(main())
