"""Raw files in the layout of each official download, with all its cases: noise and a few bright blocks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from protocol_file import anonymous_size, dataset_units, read_protocol
from skimage import io

from tests.benchmarks.conftest import PROTOCOLS

CUBE, FLAT = (20, 20, 20), (4, 20, 20)
"""Voxels (z, y, x) for networks in 3D and in 2D."""


def scan(seed: int, classes: int, shape: tuple[int, int, int] = CUBE) -> tuple[np.ndarray, np.ndarray]:
    """A volume of noise with a brighter block per class, at most 15, through all slices but the first."""
    label = np.zeros(shape, np.uint8)
    for value in range(1, classes + 1):
        y, x = (1 + 5 * (value // 4**axis % 4) for axis in range(2))
        label[1:, y : y + 5, x : x + 5] = value
    noise = np.random.default_rng(seed).normal(0, 10, shape)
    return (noise + 40 * (label > 0)).astype(np.int16), label


def write(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def left_atrium(folder: Path) -> None:
    for seed, name in enumerate(_units("la")):
        image, label = scan(seed, 1)
        write(image, folder / "2018LA_Seg_Training Set" / name / "lgemri.nrrd")
        write(label * 255, folder / "2018LA_Seg_Training Set" / name / "laendo.nrrd")


def synapse(folder: Path, shape: tuple[int, int, int] = CUBE) -> None:
    for number in [*range(1, 11), *range(21, 41)]:
        image, label = scan(number, 13, shape)
        write(image, folder / "RawData" / "Training" / "img" / f"img{number:04d}.nii.gz")
        write(label, folder / "RawData" / "Training" / "label" / f"label{number:04d}.nii.gz")


def amos(folder: Path) -> None:
    protocol = read_protocol(str(PROTOCOLS / "amos.yaml"))
    test, listed = protocol["lists"]["test"], {"training": [], "validation": [], "test": []}
    for seed, name in enumerate(_units("amos")):
        part, letters = ("validation", "Va") if name in test else ("training", "Tr")
        organs = 3 if name in test else 15  # fewer to score, in 120 scans
        for kind, array in zip(("images", "labels"), scan(seed, organs), strict=True):
            write(array, folder / "amos22" / f"{kind}{letters}" / f"{name}.nii.gz")
        listed[part].append({"image": f"./images{letters}/{name}.nii.gz", "label": f"./labels{letters}/{name}.nii.gz"})
    labels = {str(value): name for name, value in protocol["labels"].items()}
    (folder / "amos22" / "dataset.json").write_text(json.dumps({"labels": labels, **listed}))


def acdc(folder: Path) -> None:
    for number in range(1, 101):
        patient = folder / "ACDC" / "training" / f"patient{number:03d}"
        for frame in (1, 9):
            image, label = scan(100 * frame + number, 3, FLAT)
            write(image, patient / f"{patient.name}_frame{frame:02d}.nii.gz")
            write(label, patient / f"{patient.name}_frame{frame:02d}_gt.nii.gz")
        write(scan(number, 3, FLAT)[0], patient / f"{patient.name}_4d.nii.gz")
    (folder / "ACDC" / "testing").mkdir()


def kits19(folder: Path) -> None:
    for seed, name in enumerate(_units("kits19")):
        image, label = scan(seed, 2, FLAT)
        write(image, folder / "kits19" / "data" / name / "imaging.nii.gz")
        write(label, folder / "kits19" / "data" / name / "segmentation.nii.gz")
    write(image, folder / "kits19" / "data" / "case_00210" / "imaging.nii.gz")  # a test case, without label


def lits(folder: Path) -> None:
    for number in range(131):
        image, label = scan(number, 2, FLAT)
        batch = folder / f"Training Batch {1 + (number > 27)}"
        write(image, batch / f"volume-{number}.nii")
        write(label, batch / f"segmentation-{number}.nii")


def pancreas(folder: Path) -> None:
    """Images of 80 volumes in DICOM, labels of 82 in NIfTI, whose headers turn y around."""
    withdrawn = read_protocol(str(PROTOCOLS / "pancreas_ct.yaml"))["withdrawn"]["units"]
    for seed, name in enumerate(_units("pancreas_ct")):
        image, label = scan(seed, 1)
        if name not in withdrawn:
            write_series(folder / "Pancreas-CT" / name / "11-24-2015" / "Pancreas-18957", image)
        turned = sitk.GetImageFromArray(label[:, ::-1])
        turned.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
        path = folder / "TCIA_pancreas_labels-02-05-2017" / f"label{name.removeprefix('PANCREAS_')}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        sitk.WriteImage(turned, str(path))


def write_series(folder: Path, array: np.ndarray, uid: str = "1.2.3") -> None:
    """One DICOM file per slice, 2 mm apart, with names in an order of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z, pixels in enumerate(array):
        slice_ = sitk.GetImageFromArray(pixels[None].astype(np.int16))
        slice_.SetSpacing((0.5, 0.5, 2.0))
        slice_.SetMetaData("0008|0060", "CT")
        slice_.SetMetaData("0020|000e", uid)
        slice_.SetMetaData("0020|000d", "1.2")
        slice_.SetMetaData("0008|0018", f"{uid}.{z + 1}")
        slice_.SetMetaData("0020|0032", f"0\\0\\{2 * z}")
        slice_.SetMetaData("0020|0037", "1\\0\\0\\0\\1\\0")
        slice_.SetMetaData("0020|0013", str(z))
        writer.SetFileName(str(folder / f"{len(array) - z:06d}.dcm"))
        writer.Execute(slice_)


def crag(folder: Path) -> None:
    """173 images to train with and 40 to test with, glands with values of their own."""
    random = np.random.default_rng(0)
    for number in range(anonymous_size(read_protocol(str(PROTOCOLS / "crag.yaml")))):
        image = random.integers(0, 120, (20, 20, 3), dtype=np.uint8)
        label = np.zeros((20, 20), np.uint8)
        label[4:14, 6:18] = 1 + number % 3
        image[label > 0] += 100
        part, index = ("train", number) if number < 173 else ("test", number - 173)
        for name, array in (("Images", image), ("Annotation", label)):
            path = folder / "CRAG" / part / name / f"{part}_{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            io.imsave(path, array, check_contrast=False)


def _units(protocol: str) -> list[str]:
    units = dataset_units(read_protocol(str(PROTOCOLS / f"{protocol}.yaml")))
    assert units is not None
    return units
