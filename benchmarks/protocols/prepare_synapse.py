"""Synapse / BTCV abdomen (30 labelled scans, 13 organs) -> nnU-Net raw dataset.

    python benchmarks/protocols/prepare_synapse.py -i RawData/Training -d 203
    python benchmarks/protocols/prepare_synapse.py -i RawData/Training -d 206 --organs 8

With 8 organs (TransUNet's, which CMAformer reports too) the others are background.
Official layout: img/img0001.nii.gz and label/label0001.nii.gz.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from numbered_files import find_pairs
from raw_dataset import Case, Recipe, add_common_arguments, complain_about_layout, run, write_raw_dataset

LAYOUT = "img/img0001.nii.gz and label/label0001.nii.gz"
ORGANS = (
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal and splenic veins",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
)
EIGHT = ("aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas", "spleen", "stomach")


def recipe(organs: Sequence[str] = ORGANS) -> Recipe:
    """Of a dataset with these organs, numbered in this order."""
    labels = {"background": 0, **{organ: value for value, organ in enumerate(organs, start=1)}}
    return Recipe(
        name="Synapse" if len(organs) == len(ORGANS) else f"Synapse{len(organs)}",
        channel="CT",
        labels=labels,
        values={0: 0, **{value: labels.get(organ, 0) for value, organ in enumerate(ORGANS, start=1)}},
        reference="https://www.synapse.org/#!Synapse:syn3193805/wiki/217789",
        licence="see the reference",
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", required=True, metavar="FOLDER", help="the folder RawData/Training")
    parser.add_argument("--organs", type=int, choices=(13, 8), default=13, help="how many are labelled (default: 13)")
    add_common_arguments(parser, 203)
    args = parser.parse_args(argv)
    chosen = recipe(EIGHT if args.organs == len(EIGHT) else ORGANS)
    return run(lambda: write_raw_dataset(chosen, find_cases(args.i), args.d, args.np))


def find_cases(folder: str) -> list[Case]:
    """The scans.

    Raises:
        SemiSupervisedError: none, or images without label and labels without image.
    """
    pairs, problems = find_pairs(
        [f"{folder}/img"], r"img(\d{4})\.nii(\.gz)?", [f"{folder}/label"], r"label(\d{4})\.nii(\.gz)?"
    )
    if problems or not pairs:
        raise complain_about_layout(folder, problems or ["no scan"], LAYOUT)
    return [Case(f"synapse_{number:04d}", image, label) for number, (image, label) in pairs.items()]


if __name__ == "__main__":
    sys.exit(main())
