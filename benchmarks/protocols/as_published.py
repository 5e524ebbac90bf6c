"""A raw dataset on the grid and with the intensities of a publication, and predictions back on the original grid.

    python benchmarks/protocols/as_published.py make -d 203 -o 213 --window -75 275 --rescale --size 80 160 160
    python benchmarks/protocols/as_published.py make -d 201 -o 211 --zscore --crop-label 10 19 --crop-axes 1 2
    python benchmarks/protocols/as_published.py back -i PREDICTIONS -ref LABELS -o OUT

`make` writes Dataset213_SynapseAsPublished beside Dataset203_Synapse: clipped to the window, rescaled to [0, 1] or
z-scored over the whole scan, cropped around the LABEL where a publication does so (which no one can do without labels),
resized. Axes are those of the arrays: z y x. The new scans have a spacing of 1 and their channel is "noNorm", so that
nnU-Net neither resamples nor normalises them again. `back` resizes label maps by nearest neighbours.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from nnunetv2.paths import nnUNet_raw
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from scipy.ndimage import zoom
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent))
from raw_dataset import ORIGIN, digest, is_there, run

from nnunet_ssl.data.folders import write_json
from nnunet_ssl.data.text_files import read_json
from nnunet_ssl.data.workers import Workers
from nnunet_ssl.errors import complain

ENDING = ".nii.gz"


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    if args.action == "back":
        return run(lambda: back(args.i, args.ref, args.o))
    return run(lambda: make(args))


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    own = actions.add_parser("make", help="write the dataset")
    own.add_argument("-d", type=int, required=True, metavar="ID", help="dataset to start from")
    own.add_argument("-o", type=int, required=True, metavar="ID", help="number of the new dataset")
    own.add_argument("--window", nargs=2, type=float, metavar=("LOW", "HIGH"), help="clip to these intensities")
    scale = own.add_mutually_exclusive_group()
    scale.add_argument("--rescale", action="store_true", help="to [0, 1], of each scan")
    scale.add_argument("--zscore", action="store_true", help="mean 0 and variance 1, of each scan")
    own.add_argument(
        "--crop-label", nargs=2, type=int, metavar=("FROM", "TO"), help="random margin per side; seeded by the case"
    )
    own.add_argument("--crop-axes", nargs="+", type=int, default=[0, 1, 2], help="axes that are cropped (default: all)")
    own.add_argument("--least", type=int, default=0, metavar="N", help="voxels of a cropped axis, margins not counted")
    own.add_argument("--size", nargs=3, type=int, metavar="N", help="voxels per axis; 0 keeps an axis")
    own.add_argument("--nearest", action="store_true", help="resize images by nearest neighbours, too")
    own.add_argument("-np", type=int, default=4, help="processes (default: 4)")
    other = actions.add_parser("back", help="resize predictions to the grid of reference labels")
    other.add_argument("-i", required=True, metavar="FOLDER", help="predictions")
    other.add_argument("-ref", required=True, metavar="FOLDER", help="labels whose grid is wanted")
    other.add_argument("-o", required=True, metavar="FOLDER", help="where to")
    return parser.parse_args(argv)


def make(args: argparse.Namespace) -> str:
    """Write the dataset; it appears when it is complete. Returns its folder. An equal one is left as it is.

    Raises:
        SemiSupervisedError: no such dataset, a number that is taken, a format that is not NIfTI.
    """
    base = nnUNet_raw.get()
    if not base:
        raise complain("The environment variable nnUNet_raw is not set.", remedy="Set nnU-Net's paths first.")
    try:
        source = os.path.join(base, maybe_convert_to_dataset_name(args.d))
    except RuntimeError as error:
        raise complain(f"There is no dataset {args.d}: {error}") from error
    description = read_json(os.path.join(source, "dataset.json"), dict)
    name = os.path.basename(source).split("_", 1)[1]
    target = os.path.join(base, f"Dataset{args.o:03d}_{name}AsPublished")
    changes = {key: value for key, value in vars(args).items() if key not in ("action", "o", "np")}
    origin = digest([description, changes])
    if is_there(base, target, args.o, origin, "-o"):
        return target
    if description["file_ending"] != ENDING:
        raise complain(f"{source} is in {description['file_ending']}; this script reads {ENDING}.")
    cases = sorted(f.removesuffix(ENDING) for f in os.listdir(os.path.join(source, "labelsTr")) if f.endswith(ENDING))
    temporary = os.path.join(base, f".{os.path.basename(target)}.{os.getpid()}.tmp")
    try:
        for folder in ("imagesTr", "labelsTr"):
            os.makedirs(os.path.join(temporary, folder))
        with Workers(args.np) as workers:
            workers.map(partial(convert, args, source, temporary), {case: (case,) for case in cases}, "Preparing")
        channels = dict.fromkeys(description["channel_names"], "noNorm")
        write_json(os.path.join(temporary, "dataset.json"), {**description, "channel_names": channels, ORIGIN: origin})
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def convert(args: argparse.Namespace, source: str, target: str, case: str) -> None:
    """One case, all of its channels."""
    label = _array(os.path.join(source, "labelsTr", case + ENDING))
    box = crop_box(label, case, args.crop_label, args.crop_axes, args.least)
    folder = os.path.join(source, "imagesTr")
    channels = len(read_json(os.path.join(source, "dataset.json"), dict)["channel_names"])
    for file in (f"{case}_{channel:04d}{ENDING}" for channel in range(channels)):
        image = prepared(_array(os.path.join(folder, file)).astype(np.float32), args.window, args.rescale, args.zscore)
        _write(resized(image[box], args.size, nearest=args.nearest), os.path.join(target, "imagesTr", file))
    _write(resized(label[box], args.size, nearest=True), os.path.join(target, "labelsTr", case + ENDING))


def prepared(image: np.ndarray, window: Sequence[float] | None, rescale: bool, zscore: bool) -> np.ndarray:
    """Intensities of one scan, float32."""
    if window is not None:
        image = np.clip(image, window[0], window[1])
    if rescale:
        image = (image - image.min()) / max(float(np.ptp(image)), 1e-8)
    if zscore:
        image = (image - image.mean()) / max(float(image.std()), 1e-8)
    return image


def crop_box(
    label: np.ndarray, case: str, margins: Sequence[int] | None, axes: Sequence[int], least: int
) -> tuple[slice, ...]:
    """The label's box with a random margin on each side, on some axes; an axis is first widened to ``least`` voxels.

    Source: UA-MT's code/dataloaders/la_heart_processing.py at 80d0a34, whose margins are 10 to 19.
    """
    random, box = np.random.default_rng(zlib.crc32(case.encode())), [slice(None)] * 3
    found = np.nonzero(label)
    if margins is not None and len(found[0]):
        for axis in axes:
            first, last = int(found[axis].min()), int(found[axis].max())
            widen = max(least - (last - first), 0) // 2
            low, high = random.integers(margins[0], margins[1] + 1, 2)
            box[axis] = slice(max(first - low - widen, 0), min(last + high + widen, label.shape[axis]))
    return tuple(box)


def resized(array: np.ndarray, size: Sequence[int] | None, nearest: bool) -> np.ndarray:
    """(Z, Y, X) at that size; 0 keeps an axis. Trilinear as torch's interpolate, or scipy's zoom of order 0."""
    if size is None:
        return array
    wanted = [new or old for new, old in zip(size, array.shape, strict=True)]
    if nearest:
        return zoom(array, [new / old for new, old in zip(wanted, array.shape, strict=True)], order=0)
    tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))[None, None]
    return F.interpolate(tensor, size=wanted, mode="trilinear", align_corners=False)[0, 0].numpy()


def back(predictions: str, references: str, output: str) -> str:
    """Predictions on the grid of the references of the same names; returns the folder.

    Raises:
        SemiSupervisedError: predictions without a reference, all listed.
    """
    names = sorted(f for f in os.listdir(predictions) if f.endswith(ENDING))
    missing = [name for name in names if not os.path.isfile(os.path.join(references, name))]
    if missing or not names:
        raise complain(f"{references} lacks the labels of these predictions:", missing or ["there is no prediction"])
    os.makedirs(output, exist_ok=True)
    for name in names:
        reference = sitk.ReadImage(os.path.join(references, name))
        wanted = sitk.GetArrayViewFromImage(reference).shape
        result = sitk.GetImageFromArray(resized(_array(os.path.join(predictions, name)), wanted, nearest=True))
        result.CopyInformation(reference)
        sitk.WriteImage(result, os.path.join(output, name))
    for name in ("dataset.json", "prediction.json"):
        if os.path.isfile(path := os.path.join(predictions, name)):
            shutil.copy(path, output)
    return output


def _array(path: str) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(path))


def _write(array: np.ndarray, path: str) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(array), path)


if __name__ == "__main__":
    sys.exit(main())
