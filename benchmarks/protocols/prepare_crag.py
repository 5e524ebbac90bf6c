"""CRAG (213 H&E images of colorectal glands) -> nnU-Net raw dataset in 2D.

    python benchmarks/protocols/prepare_crag.py -i CRAG -d 207

Official layout: train and test (or valid), each with Images/*.png and Annotation/*.png (or Annotations), where every
gland has a value of its own. Written: three colour channels, one class "gland".
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json
from nnunetv2.paths import nnUNet_raw
from skimage import io
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent))
from raw_dataset import ORIGIN, complain_about_layout, digest, is_there, run

from nnunet_ssl.errors import complain

PARTS = ("train", "test", "valid")
ANNOTATIONS = ("Annotation", "Annotations")
LAYOUT = "train and test (or valid), each with Images/NAME.png and Annotation/NAME.png"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", required=True, metavar="FOLDER", help="the folder with train and test (or valid)")
    parser.add_argument("-d", type=int, default=207, metavar="ID", help="number of the dataset (default: 207)")
    args = parser.parse_args(argv)
    return run(lambda: prepare(args.i, args.d))


def find_cases(folder: str) -> dict[str, tuple[str, str]]:
    """Identifier -> (image, annotation).

    Raises:
        SemiSupervisedError: no image, or images without annotation and annotations without image.
    """
    cases: dict[str, tuple[str, str]] = {}
    problems = []
    for part in PARTS:
        images = _png_files(os.path.join(folder, part, "Images"))
        labels = {k: v for name in ANNOTATIONS for k, v in _png_files(os.path.join(folder, part, name)).items()}
        problems += [f"{images[name]}: no annotation" for name in sorted(set(images) - set(labels))]
        problems += [f"{labels[name]}: no image" for name in sorted(set(labels) - set(images))]
        for name in sorted(set(images) & set(labels)):
            identifier = name if name.startswith(f"{part}_") else f"{part}_{name}"
            cases[identifier] = (images[name], labels[name])
    if problems or not cases:
        raise complain_about_layout(folder, problems or ["no image"], LAYOUT)
    return cases


def prepare(folder: str, number: int) -> str:
    """Write the dataset; it appears when it is complete. One of files of the same names and sizes is left as it is.

    Raises:
        SemiSupervisedError: nnUNet_raw is not set, the dataset exists, unreadable or ill-shaped files, all listed.
    """
    cases, base = find_cases(folder), nnUNet_raw.get()
    if not base:
        raise complain("The environment variable nnUNet_raw is not set.", remedy="Set nnU-Net's paths first.")
    target = os.path.join(base, f"Dataset{number:03d}_CRAG")
    origin = digest([[name, *(os.path.getsize(path) for path in pair)] for name, pair in cases.items()])
    if is_there(base, target, number, origin, "-d"):
        return target
    temporary, problems = os.path.join(base, f".{os.path.basename(target)}.{os.getpid()}.tmp"), []
    try:
        for name in ("imagesTr", "labelsTr"):
            os.makedirs(os.path.join(temporary, name))
        for identifier, (image, label) in tqdm(cases.items(), desc="Converting"):
            problems += [f"{identifier}: {problem}" for problem in convert(identifier, image, label, temporary)]
        if problems:
            raise complain("These images cannot be converted:", problems)
        generate_dataset_json(
            temporary,
            {0: "R", 1: "G", 2: "B"},
            {"background": 0, "gland": 1},
            len(cases),
            ".png",
            dataset_name="CRAG",
            reference="https://warwick.ac.uk/fac/cross_fac/tia/data/mildnet/",
            license="see the reference",
            converted_by="benchmarks/protocols of nnunet_ssl",
            **{ORIGIN: origin},
        )
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def convert(identifier: str, image_path: str, label_path: str, folder: str) -> list[str]:
    """Write one image and its mask; returns problems."""
    try:
        image, label = io.imread(image_path), io.imread(label_path)
    except (OSError, ValueError, SyntaxError) as error:
        return [f"not readable ({error})"]
    if image.ndim != 3 or image.shape[2] not in (3, 4):
        return [f"the image is not RGB (shape {image.shape})"]
    if label.ndim != 2 or label.shape != image.shape[:2]:
        return [f"the annotation has shape {label.shape}, the image {image.shape}"]
    io.imsave(os.path.join(folder, "imagesTr", f"{identifier}_0000.png"), image[..., :3], check_contrast=False)
    mask = (label > 0).astype(np.uint8)
    io.imsave(os.path.join(folder, "labelsTr", f"{identifier}.png"), mask, check_contrast=False)
    return []


def _png_files(folder: str) -> dict[str, str]:
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return {name[:-4]: os.path.join(folder, name) for name in names if name.lower().endswith(".png")}


if __name__ == "__main__":
    sys.exit(main())
