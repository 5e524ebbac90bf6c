"""Synapse / BTCV abdomen (30 labelled scans, 13 organs) -> nnU-Net raw dataset.

    python benchmarks/protocols/prepare_synapse.py -i RawData/Training -d 203

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
RECIPE = Recipe(
    name="Synapse",
    channel="CT",
    labels={"background": 0, **{organ: value for value, organ in enumerate(ORGANS, start=1)}},
    values={value: value for value in range(len(ORGANS) + 1)},
    reference="https://www.synapse.org/#!Synapse:syn3193805/wiki/217789",
    licence="see the reference",
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", required=True, metavar="FOLDER", help="the folder RawData/Training")
    add_common_arguments(parser, 203)
    args = parser.parse_args(argv)
    return run(lambda: write_raw_dataset(RECIPE, find_cases(args.i), args.d, args.np))


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
