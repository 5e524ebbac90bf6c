"""Left atrium (2018 Atrial Segmentation Challenge) -> nnU-Net raw dataset.

    python benchmarks/protocols/prepare_la.py -i "2018LA_Seg_Training Set" -d 201

Official layout: one folder per scan with lgemri.nrrd (image) and laendo.nrrd (label, 255 = left atrium).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from raw_dataset import Case, Recipe, add_common_arguments, cases_in_folders, run, write_raw_dataset

LAYOUT = "SCAN/lgemri.nrrd and SCAN/laendo.nrrd, one folder per scan"
RECIPE = Recipe(
    name="LA",
    channel="MRI",
    labels={"background": 0, "left atrium": 1},
    values={0: 0, 255: 1},
    reference="https://www.cardiacatlas.org/atriaseg2018-challenge/",
    licence="see the reference",
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", required=True, metavar="FOLDER", help='the folder "2018LA_Seg_Training Set"')
    add_common_arguments(parser, 201)
    args = parser.parse_args(argv)
    return run(lambda: write_raw_dataset(RECIPE, find_cases(args.i), args.d, args.np))


def find_cases(folder: str) -> list[Case]:
    """The scans.

    Raises:
        SemiSupervisedError: none, or folders without one of the two files.
    """
    scans = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()) if os.path.isdir(folder) else []
    return cases_in_folders(folder, scans, ("lgemri.nrrd", "laendo.nrrd"), "no scan", LAYOUT)


if __name__ == "__main__":
    sys.exit(main())
