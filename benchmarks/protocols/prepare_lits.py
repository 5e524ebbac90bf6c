"""LiTS (131 labelled volumes: liver, tumour) -> nnU-Net raw dataset.

    python benchmarks/protocols/prepare_lits.py -i "Training Batch 1" "Training Batch 2" -d 205

Official layout: volume-0.nii and segmentation-0.nii, in the folders of both training batches.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from numbered_files import find_pairs
from raw_dataset import Case, Recipe, add_common_arguments, complain_about_layout, run, write_raw_dataset

LAYOUT = "volume-0.nii and segmentation-0.nii; give the folders of both batches"
RECIPE = Recipe(
    name="LiTS",
    channel="CT",
    labels={"background": 0, "liver": 1, "tumor": 2},
    values={0: 0, 1: 1, 2: 2},
    reference="https://competitions.codalab.org/competitions/17094",
    licence="see the reference",
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", required=True, nargs="+", metavar="FOLDER", help="the folders of the training batches")
    add_common_arguments(parser, 205)
    args = parser.parse_args(argv)
    return run(lambda: write_raw_dataset(RECIPE, find_cases(args.i), args.d, args.np))


def find_cases(folders: Sequence[str]) -> list[Case]:
    """The volumes.

    Raises:
        SemiSupervisedError: none, or volumes without segmentation and segmentations without volume.
    """
    pairs, problems = find_pairs(folders, r"volume-(\d+)\.nii(\.gz)?", folders, r"segmentation-(\d+)\.nii(\.gz)?")
    if problems or not pairs:
        raise complain_about_layout(", ".join(folders), problems or ["no volume"], LAYOUT)
    return [Case(f"lits_{number:03d}", image, label) for number, (image, label) in pairs.items()]


if __name__ == "__main__":
    sys.exit(main())
